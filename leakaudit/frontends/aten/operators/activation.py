"""Activation functions and other functions of each element."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from leakaudit.frontends.aten.call import Call, Layer, normal_axis
from leakaudit.frontends.aten.operators.arithmetic import scaled
from leakaudit.frontends.aten.operators.shape import one_axis
from leakaudit.frontends.aten.values import NotUnderstoodError
from leakaudit.operators import (
    ArcTan,
    Celu,
    Clip,
    Elementwise,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyRelu,
    Mish,
    Mul,
    Operator,
    PRelu,
    Relu,
    Scale,
    Selu,
    Sigmoid,
    Silu,
    Softplus,
    Tanh,
)

Builder = Callable[[Call], Layer]


def fixed(op: Operator) -> Builder:
    """A builder for an operator without arguments of its own."""

    def builder(call: Call) -> Layer:
        return Layer(op, (call.source().name,), outputs=(call.output,))

    return builder


def _leaky_relu(call: Call) -> Layer:
    return Layer(LeakyRelu(call.number("negative_slope", 0.01)), (call.source().name,))


def _rrelu(call: Call) -> Layer:
    if call.flag("training", False):
        raise NotUnderstoodError("its slopes are drawn at random: export in evaluation mode")
    slope = (call.number("lower", 1 / 8) + call.number("upper", 1 / 3)) / 2
    return Layer(LeakyRelu(slope), (call.source().name,))


def _elu(call: Call) -> Layer:
    alpha, scale = call.number("alpha", 1.0), call.number("scale", 1.0)
    source = call.source()
    if call.number("input_scale", 1.0) != 1:
        raise NotUnderstoodError("it scales its input")
    if scale != 1:
        # Decomposed graphs hold selu in this form.
        return Layer(Selu(alpha, scale), (source.name,))
    return Layer(Elu(alpha), (source.name,))


def _celu(call: Call) -> Layer:
    alpha = call.number("alpha", 1.0)
    if alpha == 0:
        raise NotUnderstoodError("its alpha is 0")
    return Layer(Celu(alpha), (call.source().name,))


def _softplus(call: Call) -> Layer:
    """log(1 + e^(beta·x)) / beta, which torch continues as x where beta·x is above a threshold."""
    beta = call.number("beta", 1.0)
    if call.number("threshold", 20.0) < 20 or beta == 0:
        raise NotUnderstoodError("its threshold is below 20, or its beta is 0")
    source = scaled(call, call.source(), beta)
    if beta == 1:
        return Layer(Softplus(), (source.name,))
    smooth = call.emit(Softplus(), (source,), source.shape)
    return Layer(Scale(1 / beta), (smooth.name,))


def _log_sigmoid(call: Call) -> Layer:
    source = scaled(call, call.source(), -1.0)
    smooth = call.emit(Softplus(), (source,), source.shape)
    return Layer(Scale(-1.0), (smooth.name,), outputs=(call.output,))


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
    return Layer(PRelu(), (source.name,), (("slope", slope.name),))


def _clip(low: str, high: str, missing: float = math.inf) -> Builder:
    """Between two arguments; where one is left out or None, `missing` bounds in its direction."""

    def builder(call: Call) -> Layer:
        bounds = Clip(
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
                op = Clip(value, math.inf) if largest else Clip(-math.inf, value)
                return Layer(op, (call.tensor(source).name,))
        raise NotUnderstoodError("neither of its arguments is one constant number")

    return builder


def _gelu(call: Call) -> Layer:
    approximate = call.arguments.get("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise NotUnderstoodError("its approximation is not known")
    return Layer(Gelu(approximate == "tanh"), (call.source().name,))


def _glu(call: Call) -> Layer:
    source = call.source()
    axis = normal_axis(call.integer("dim", -1), len(source.shape))
    half, odd = divmod(source.shape[axis], 2)
    if odd:
        raise NotUnderstoodError("its axis cannot be halved")
    shape = (*source.shape[:axis], half, *source.shape[axis + 1 :])
    value = call.emit(one_axis(source.shape, axis, range(half)), (source,), shape)
    gate = call.emit(one_axis(source.shape, axis, range(half, 2 * half)), (source,), shape)
    opened = call.emit(Sigmoid(), (gate,), shape)
    return Layer(Mul(), (value.name, opened.name))


def _dropout(call: Call) -> Layer:
    if call.flag("train", True) and call.number("p", 0.5) != 0:
        raise NotUnderstoodError(
            "dropout is active: export the model in evaluation mode (model.eval())"
        )
    return Layer(Identity(), (call.source().name,), outputs=(call.output,))


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
    "aten.relu.default": fixed(Relu()),
    "aten.relu6.default": fixed(Clip(0.0, 6.0)),
    "aten.leaky_relu.default": _leaky_relu,
    "aten.rrelu.default": _rrelu,
    "aten.prelu.default": _prelu,
    "aten._prelu_kernel.default": _prelu,
    "aten.elu.default": _elu,
    "aten.celu.default": _celu,
    "aten.selu.default": fixed(Selu()),
    "aten.sigmoid.default": fixed(Sigmoid()),
    "aten.special_expit.default": fixed(Sigmoid()),
    "aten.tanh.default": fixed(Tanh()),
    "aten.atan.default": fixed(ArcTan()),
    "aten.arctan.default": fixed(ArcTan()),
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
    "aten.hardsigmoid.default": fixed(HardSigmoid(1 / 6, 0.5)),
    "aten.silu.default": fixed(Silu()),
    "aten.gelu.default": _gelu,
    "aten.mish.default": fixed(Mish()),
    "aten.hardswish.default": fixed(HardSwish()),
    "aten.glu.default": _glu,
    "aten.special_erf.default": fixed(Elementwise("erf")),
    **{f"aten.{name}.default": fixed(Elementwise(name)) for name in _ELEMENTWISE},
    **dict.fromkeys(_DROPOUTS, _dropout),
}
