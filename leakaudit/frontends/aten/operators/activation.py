"""Activation functions and other functions of each element; what passes its input on."""

from __future__ import annotations

import math
from collections.abc import Mapping

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Builder, Call, Layer, affine, same
from leakaudit.frontends.aten.values import is_floating
from leakaudit.frontends.aten.views import CASTS, COPIES
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.graph import Tensor


def element(x: Tensor, function: str) -> Layer:
    """A function of each element of x."""
    return Layer(ops.Elementwise(function), (x.name,))


def gate(x: Tensor) -> Layer:
    """sigmoid(x), which opens what it multiplies."""
    return Layer(ops.Sigmoid(), (x.name,))


def fixed(op: ops.Operator) -> Builder:
    """A builder for an operator without arguments of its own."""

    def builder(call: Call) -> Layer:
        return Layer(op, (call.source().name,), outputs=(call.output,))

    return builder


def _leaky_relu(call: Call) -> Layer:
    return Layer(ops.LeakyRelu(call.number("negative_slope", 0.01)), (call.source().name,))


def _rrelu(call: Call) -> Layer:
    if call.flag("training", False):
        raise NotUnderstoodError("its slopes are drawn at random: export in evaluation mode")
    slope = (call.number("lower", 1 / 8) + call.number("upper", 1 / 3)) / 2
    return Layer(ops.LeakyRelu(slope), (call.source().name,))


def _elu(call: Call) -> Layer:
    alpha, scale = call.number("alpha", 1.0), call.number("scale", 1.0)
    source = call.source()
    if call.number("input_scale", 1.0) != 1:
        raise NotUnderstoodError("it scales its input")
    if scale != 1:
        # Decomposed graphs hold selu in this form.
        return Layer(ops.Selu(alpha, scale), (source.name,))
    return Layer(ops.Elu(alpha), (source.name,))


def _celu(call: Call) -> Layer:
    alpha = call.number("alpha", 1.0)
    if alpha == 0:
        raise NotUnderstoodError("its alpha is 0")
    return Layer(ops.Celu(alpha), (call.source().name,))


def _softplus(call: Call) -> Layer:
    """log(1 + e^(beta·x)) / beta, which torch continues as x where beta·x is above a threshold."""
    beta = call.number("beta", 1.0)
    if call.number("threshold", 20.0) < 20 or beta == 0:
        raise NotUnderstoodError("its threshold is below 20, or its beta is 0")
    source = call.scaled(call.source(), beta)
    if beta == 1:
        return Layer(ops.Softplus(), (source.name,))
    smooth = call.emit(ops.Softplus(), (source,), source.shape)
    return affine(smooth, 1 / beta)


def _log_sigmoid(call: Call) -> Layer:
    source = call.scaled(call.source(), -1.0)
    smooth = call.emit(ops.Softplus(), (source,), source.shape)
    return affine(smooth, -1.0, 0.0, call.output)


def _prelu(call: Call) -> Layer:
    source, slope = call.tensor("self"), call.weight("weight")
    count = math.prod(slope.shape)
    channels = source.shape[1] if len(source.shape) > 1 else 1
    if count not in (1, channels):
        raise NotUnderstoodError(f"it has {count} slopes for {channels} channels")
    if call.target == "aten.prelu.default":
        on_channels = slope.plain
    else:
        # Decomposed graphs broadcast: the slopes stand in a view (1, C, 1, 1).
        leading = (1,) * (len(source.shape) - len(slope.shape))
        aligned = (*leading, *slope.shape)
        on_channels = all(size == 1 for axis, size in enumerate(aligned) if axis != 1)
    if count > 1 and not on_channels:
        raise NotUnderstoodError("its slopes do not lie along the channels")
    return Layer(ops.PRelu(), (source.name,), (("slope", slope.name),))


def _clip(low: str, high: str, missing: float = math.inf) -> Builder:
    """Between two arguments; where one is left out or None, `missing` bounds in its direction."""

    def builder(call: Call) -> Layer:
        bounds = ops.Clip(
            call.optional_number(low, -missing) if low else -math.inf,
            call.optional_number(high, missing) if high else math.inf,
        )
        if not bounds.low <= bounds.high:
            raise NotUnderstoodError("its lower bound is above its upper bound")
        return Layer(bounds, (call.source().name,))

    return builder


def _extreme(largest: bool) -> Builder:
    """maximum and minimum with a constant number."""

    def builder(call: Call) -> Layer:
        names = ("self", "other")
        for source, bound in (names, names[::-1]):
            if call.sink.is_tensor(call.operand(source).name):
                numbers = call.numbers(bound)
                if not numbers.size or (numbers != numbers.flat[0]).any():
                    break
                value = float(numbers.flat[0])
                op = ops.Clip(value, math.inf) if largest else ops.Clip(-math.inf, value)
                return Layer(op, (call.tensor(source).name,))
        raise NotUnderstoodError("neither of its arguments is one constant number")

    return builder


def _gelu(call: Call) -> Layer:
    approximate = call.arguments.get("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise NotUnderstoodError("its approximation is not known")
    return Layer(ops.Gelu(approximate == "tanh"), (call.source().name,))


def _logarithm(base: float) -> Builder:
    def builder(call: Call) -> Layer:
        source = call.source()
        natural = call.computed(element(source, "log"), source.shape)
        return affine(natural, 1 / math.log(base))

    return builder


def _log1p(call: Call) -> Layer:
    source = call.source()
    shifted = call.scaled(source, 1.0, 1.0)
    return element(shifted, "log")


def _expm1(call: Call) -> Layer:
    source = call.source()
    raised = call.computed(element(source, "exp"), source.shape)
    return affine(raised, 1.0, -1.0)


def _power_of_two(call: Call) -> Layer:
    source = call.scaled(call.source(), math.log(2))
    return element(source, "exp")


def _dropout(call: Call) -> Layer:
    if call.flag("train", True) and call.number("p", 0.5) != 0:
        raise NotUnderstoodError(
            "dropout is active: export the model in evaluation mode (model.eval())"
        )
    return same(call.source(), call.output)


def _copy(call: Call) -> Layer:
    return same(call.operand(call.source_name()))


def _cast(call: Call) -> Layer:
    source, wanted = call.operand(call.source_name()), call.output.dtype
    if source.dtype != wanted and not (is_floating(source.dtype) and is_floating(wanted)):
        raise NotUnderstoodError(f"it turns {source.dtype} data into {wanted}")
    return same(source)


_DROPOUTS = (
    "aten.dropout.default",
    "aten.feature_dropout.default",
    "aten.alpha_dropout.default",
    "aten.feature_alpha_dropout.default",
    "aten.native_dropout.default",
)
_ELEMENTWISE = (
    *("abs", "ceil", "cos", "cosh", "erf", "exp", "floor", "log", "reciprocal", "round", "rsqrt"),
    *("sign", "sin", "sinh", "sqrt", "square", "tan"),
    *("acos", "acosh", "asin", "asinh", "atanh"),
)


BUILDERS: Mapping[str, Builder] = {
    "aten.relu.default": fixed(ops.Relu()),
    "aten.relu6.default": fixed(ops.Clip(0.0, 6.0)),
    "aten.leaky_relu.default": _leaky_relu,
    "aten.rrelu.default": _rrelu,
    "aten.prelu.default": _prelu,
    "aten._prelu_kernel.default": _prelu,
    "aten.elu.default": _elu,
    "aten.celu.default": _celu,
    "aten.selu.default": fixed(ops.Selu()),
    "aten.sigmoid.default": fixed(ops.Sigmoid()),
    "aten.special_expit.default": fixed(ops.Sigmoid()),
    "aten.tanh.default": fixed(ops.Tanh()),
    "aten.atan.default": fixed(ops.ArcTan()),
    "aten.arctan.default": fixed(ops.ArcTan()),
    "aten.softplus.default": _softplus,
    "aten.log_sigmoid.default": _log_sigmoid,
    "aten.log_sigmoid_forward.default": _log_sigmoid,
    "aten.hardtanh.default": _clip("min_val", "max_val", missing=1.0),
    "aten.clamp.default": _clip("min", "max"),
    "aten.clip.default": _clip("min", "max"),
    "aten.clamp_min.default": _clip("min", ""),
    "aten.clamp_max.default": _clip("", "max"),
    "aten.maximum.default": _extreme(True),
    "aten.minimum.default": _extreme(False),
    "aten.max.other": _extreme(True),
    "aten.min.other": _extreme(False),
    "aten.hardsigmoid.default": fixed(ops.HardSigmoid(1 / 6, 0.5)),
    "aten.silu.default": fixed(ops.Silu()),
    "aten.gelu.default": _gelu,
    "aten.mish.default": fixed(ops.Mish()),
    "aten.hardswish.default": fixed(ops.HardSwish()),
    "aten.special_erf.default": fixed(ops.Elementwise("erf")),
    **{f"aten.{name}.default": fixed(ops.Elementwise(name)) for name in _ELEMENTWISE},
    **dict.fromkeys(_DROPOUTS, _dropout),
    "aten.log2.default": _logarithm(2),
    "aten.log10.default": _logarithm(10),
    "aten.log1p.default": _log1p,
    "aten.expm1.default": _expm1,
    "aten.exp2.default": _power_of_two,
    **dict.fromkeys(COPIES, _copy),
    **dict.fromkeys(CASTS, _cast),
}
