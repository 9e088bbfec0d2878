"""Activation functions and other functions of each element; what passes its input on."""

from __future__ import annotations

import math
from functools import partial

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Builder, Call, Layer, affine, by_target, same
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


def _fixed(op: ops.Operator) -> Builder:
    """A builder for an operator without arguments of its own."""
    return lambda call: Layer(op, (call.source().name,))


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


def _between(
    call: Call,
    op: ops.Operator,
    before: tuple[float, float] = (1.0, 0.0),
    after: tuple[float, float] = (1.0, 0.0),
) -> Layer:
    """A function of each element, with a factor and an offset before it and after it."""
    source = call.scaled(call.source(), *before)
    layer = Layer(op, (source.name,))
    return layer if after == (1, 0) else affine(call.computed(layer, source.shape), *after)


def _softplus(call: Call) -> Layer:
    """log(1 + e^(beta·x)) / beta, which torch continues as x where beta·x is above a threshold."""
    beta = call.number("beta", 1.0)
    if call.number("threshold", 20.0) < 20 or beta == 0:
        raise NotUnderstoodError("its threshold is below 20, or its beta is 0")
    return _between(call, ops.Softplus(), (beta, 0.0), (1 / beta, 0.0))


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


def _clip(call: Call, low: str, high: str, missing: float = math.inf) -> Layer:
    """Between two arguments; where one is left out or None, `missing` bounds in its direction."""
    bounds = ops.Clip(
        call.optional_number(low, -missing) if low else -math.inf,
        call.optional_number(high, missing) if high else math.inf,
    )
    if not bounds.low <= bounds.high:
        raise NotUnderstoodError("its lower bound is above its upper bound")
    return Layer(bounds, (call.source().name,))


def _extreme(call: Call, largest: bool) -> Layer:
    """maximum and minimum with a constant number."""
    names = ("self", "other")
    for source, bound in (names, names[::-1]):
        if call.operand(source).name in call.sink.tensors:
            numbers = call.numbers(bound)
            if not numbers.size or (numbers != numbers.flat[0]).any():
                break
            value = float(numbers.flat[0])
            op = ops.Clip(value, math.inf) if largest else ops.Clip(-math.inf, value)
            return Layer(op, (call.tensor(source).name,))
    raise NotUnderstoodError("neither of its arguments is one constant number")


def _gelu(call: Call) -> Layer:
    approximate = call.arguments.get("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise NotUnderstoodError("its approximation is not known")
    return Layer(ops.Gelu(approximate == "tanh"), (call.source().name,))


def _dropout(call: Call) -> Layer:
    if call.flag("train", True) and call.number("p", 0.5) != 0:
        raise NotUnderstoodError(
            "dropout is active: export the model in evaluation mode (model.eval())"
        )
    return same(call.source())


def _copy(call: Call) -> Layer:
    return same(call.operand(call.source_name()))


def _cast(call: Call) -> Layer:
    source, wanted = call.operand(call.source_name()), call.output.dtype
    if source.dtype != wanted and not (is_floating(source.dtype) and is_floating(wanted)):
        raise NotUnderstoodError(f"it turns {source.dtype} data into {wanted}")
    return same(source)


_ELEMENTWISE = (
    *("abs", "ceil", "cos", "cosh", "erf", "exp", "floor", "log", "reciprocal", "round", "rsqrt"),
    *("sign", "sin", "sinh", "sqrt", "square", "tan"),
    *("acos", "acosh", "asin", "asinh", "atanh"),
)
_EXP, _LOG = ops.Elementwise("exp"), ops.Elementwise("log")

BUILDERS = by_target(
    {
        "relu": _fixed(ops.Relu()),
        "relu6": _fixed(ops.Clip(0.0, 6.0)),
        "leaky_relu": _leaky_relu,
        "rrelu": _rrelu,
        "prelu _prelu_kernel": _prelu,
        "elu": _elu,
        "celu": _celu,
        "selu": _fixed(ops.Selu()),
        "sigmoid special_expit": _fixed(ops.Sigmoid()),
        "tanh": _fixed(ops.Tanh()),
        "atan arctan": _fixed(ops.ArcTan()),
        "softplus": _softplus,
        "log_sigmoid log_sigmoid_forward": partial(
            _between, op=ops.Softplus(), before=(-1.0, 0.0), after=(-1.0, 0.0)
        ),
        "hardtanh": partial(_clip, low="min_val", high="max_val", missing=1.0),
        "clamp clip": partial(_clip, low="min", high="max"),
        "clamp_min": partial(_clip, low="min", high=""),
        "clamp_max": partial(_clip, low="", high="max"),
        "maximum max.other": partial(_extreme, largest=True),
        "minimum min.other": partial(_extreme, largest=False),
        "hardsigmoid": _fixed(ops.HardSigmoid(1 / 6, 0.5)),
        "silu": _fixed(ops.Silu()),
        "gelu": _gelu,
        "mish": _fixed(ops.Mish()),
        "hardswish": _fixed(ops.HardSwish()),
        "special_erf": _fixed(ops.Elementwise("erf")),
        **{name: _fixed(ops.Elementwise(name)) for name in _ELEMENTWISE},
        "dropout feature_dropout alpha_dropout feature_alpha_dropout native_dropout": _dropout,
        "log2": partial(_between, op=_LOG, after=(1 / math.log(2), 0.0)),
        "log10": partial(_between, op=_LOG, after=(1 / math.log(10), 0.0)),
        "log1p": partial(_between, op=_LOG, before=(1.0, 1.0)),
        "expm1": partial(_between, op=_EXP, after=(1.0, -1.0)),
        "exp2": partial(_between, op=_EXP, before=(math.log(2), 0.0)),
    }
)
BUILDERS |= dict.fromkeys(COPIES, _copy) | dict.fromkeys(CASTS, _cast)
