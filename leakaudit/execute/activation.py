"""Functions of each element; activations three ways: forward, inverted, derivative in the output.

The table of activations is R-CONV's (WISE 2024, table 1), with SoftPlus corrected: 1/(1+e^-X) is
its derivative in the pre-activation; in the output X it is 1 - e^-X. Where an activation is flat
(Clip and HardSigmoid where they saturate) the derivative is 0 and the inverse NaN. Activations that
are not monotone (SiLU, GELU, Mish, HardSwish) have neither: their output does not tell their input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.equations.axes import per_channel
from leakaudit.execute.interface import Call, Executors, NotExecutable, Outputs
from leakaudit.operators import (
    Activation,
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
    PRelu,
    Relu,
    Selu,
    Sigmoid,
    Silu,
    Softplus,
    Softsign,
    Tanh,
)


@singledispatch
def apply(op: Activation, o: Tensor, slope: Tensor | None) -> Tensor:
    """y = act(o), elementwise. `slope` is PReLU's parameter.

    Raises:
        NotImplementedError: The activation is not in the table.
    """
    raise NotImplementedError(type(op).__name__)


@singledispatch
def derivative(op: Activation, y: Tensor, slope: Tensor | None) -> Tensor:
    """act'(o) as a function of the output y, elementwise, at least 0 for monotone activations.

    Raises:
        NotImplementedError: The activation is not in the table, or not monotone.
    """
    raise NotImplementedError(type(op).__name__)


@singledispatch
def inverse(op: Activation, y: Tensor, slope: Tensor | None) -> Tensor:
    """o with act(o) = y; not finite where y has no (finite) pre-image, or more than one.

    Raises:
        NotImplementedError: The activation is not in the table, or not monotone.
    """
    raise NotImplementedError(type(op).__name__)


@apply.register
def _(op: Relu, o: Tensor, slope: Tensor | None) -> Tensor:
    return o.relu()


@derivative.register
def _(op: Relu, y: Tensor, slope: Tensor | None) -> Tensor:
    return (y > 0).to(y.dtype)


@inverse.register
def _(op: Relu, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where(y > 0, y, torch.full_like(y, torch.nan))


@apply.register
def _(op: LeakyRelu, o: Tensor, slope: Tensor | None) -> Tensor:
    return F.leaky_relu(o, op.slope)


@derivative.register
def _(op: LeakyRelu, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where(y > 0, torch.ones_like(y), torch.full_like(y, op.slope))


@inverse.register
def _(op: LeakyRelu, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where(y > 0, y, y / op.slope)


@apply.register
def _(op: PRelu, o: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where(o > 0, o, o * per_channel(_required(slope), o))


@derivative.register
def _(op: PRelu, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where(y > 0, torch.ones_like(y), per_channel(_required(slope), y).expand_as(y))


@inverse.register
def _(op: PRelu, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where(y > 0, y, y / per_channel(_required(slope), y))


@apply.register
def _(op: Elu, o: Tensor, slope: Tensor | None) -> Tensor:
    return F.elu(o, op.alpha)


@derivative.register
def _(op: Elu, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where(y > 0, torch.ones_like(y), (y + op.alpha).clamp_min(0))


@inverse.register
def _(op: Elu, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where(y > 0, y, torch.log1p(y / op.alpha))


@apply.register
def _(op: Sigmoid, o: Tensor, slope: Tensor | None) -> Tensor:
    return o.sigmoid()


@derivative.register
def _(op: Sigmoid, y: Tensor, slope: Tensor | None) -> Tensor:
    return (y * (1 - y)).clamp_min(0)


@inverse.register
def _(op: Sigmoid, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.logit(y)


@apply.register
def _(op: Tanh, o: Tensor, slope: Tensor | None) -> Tensor:
    return o.tanh()


@derivative.register
def _(op: Tanh, y: Tensor, slope: Tensor | None) -> Tensor:
    return (1 - y * y).clamp_min(0)


@inverse.register
def _(op: Tanh, y: Tensor, slope: Tensor | None) -> Tensor:
    return y.atanh()


@apply.register
def _(op: ArcTan, o: Tensor, slope: Tensor | None) -> Tensor:
    return o.atan()


@derivative.register
def _(op: ArcTan, y: Tensor, slope: Tensor | None) -> Tensor:
    return y.cos().square()  # 1/(1 + tan²y)


@inverse.register
def _(op: ArcTan, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where(y.abs() < torch.pi / 2, y.tan(), torch.full_like(y, torch.nan))


@apply.register
def _(op: Softplus, o: Tensor, slope: Tensor | None) -> Tensor:
    return F.softplus(o)


@derivative.register
def _(op: Softplus, y: Tensor, slope: Tensor | None) -> Tensor:
    return (-torch.expm1(-y)).clamp_min(0)


@inverse.register
def _(op: Softplus, y: Tensor, slope: Tensor | None) -> Tensor:
    return y + torch.log(-torch.expm1(-y))


@apply.register
def _(op: Celu, o: Tensor, slope: Tensor | None) -> Tensor:
    return F.celu(o, op.alpha)


@derivative.register
def _(op: Celu, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where(y > 0, torch.ones_like(y), (y / op.alpha + 1).clamp_min(0))


@inverse.register
def _(op: Celu, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where(y > 0, y, op.alpha * torch.log1p(y / op.alpha))


@apply.register
def _(op: Selu, o: Tensor, slope: Tensor | None) -> Tensor:
    return op.gamma * F.elu(o, op.alpha)


@derivative.register
def _(op: Selu, y: Tensor, slope: Tensor | None) -> Tensor:
    negative = (y + op.gamma * op.alpha).clamp_min(0)
    return torch.where(y > 0, torch.full_like(y, op.gamma), negative)


@inverse.register
def _(op: Selu, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where(y > 0, y / op.gamma, torch.log1p(y / (op.gamma * op.alpha)))


@apply.register
def _(op: Softsign, o: Tensor, slope: Tensor | None) -> Tensor:
    return F.softsign(o)


@derivative.register
def _(op: Softsign, y: Tensor, slope: Tensor | None) -> Tensor:
    return (1 - y.abs()).clamp_min(0).square()


@inverse.register
def _(op: Softsign, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where(y.abs() < 1, y / (1 - y.abs()), torch.full_like(y, torch.nan))


@apply.register
def _(op: Clip, o: Tensor, slope: Tensor | None) -> Tensor:
    if o.is_floating_point():
        # Not clamp: its gradient is 1 at the ends, where `derivative` has 0.
        return F.hardtanh(o, op.low, op.high)
    return o.clamp(*(int(end) if math.isfinite(end) else None for end in (op.low, op.high)))


@derivative.register
def _(op: Clip, y: Tensor, slope: Tensor | None) -> Tensor:
    return ((y > op.low) & (y < op.high)).to(y.dtype)


@inverse.register
def _(op: Clip, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where((y > op.low) & (y < op.high), y, torch.full_like(y, torch.nan))


@apply.register
def _(op: HardSigmoid, o: Tensor, slope: Tensor | None) -> Tensor:
    return F.hardtanh(op.alpha * o + op.beta, 0.0, 1.0)


@derivative.register
def _(op: HardSigmoid, y: Tensor, slope: Tensor | None) -> Tensor:
    return op.alpha * ((y > 0) & (y < 1)).to(y.dtype)


@inverse.register
def _(op: HardSigmoid, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where((y > 0) & (y < 1), (y - op.beta) / op.alpha, torch.full_like(y, torch.nan))


@apply.register
def _(op: Silu, o: Tensor, slope: Tensor | None) -> Tensor:
    return o * torch.sigmoid(op.beta * o)


@apply.register
def _(op: Gelu, o: Tensor, slope: Tensor | None) -> Tensor:
    return F.gelu(o, approximate="tanh" if op.approximate else "none")


@apply.register
def _(op: Mish, o: Tensor, slope: Tensor | None) -> Tensor:
    return F.mish(o)


@apply.register
def _(op: HardSwish, o: Tensor, slope: Tensor | None) -> Tensor:
    return F.hardswish(o)


@apply.register
def _(op: Identity, o: Tensor, slope: Tensor | None) -> Tensor:
    return o


@derivative.register
def _(op: Identity, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.ones_like(y)


@inverse.register
def _(op: Identity, y: Tensor, slope: Tensor | None) -> Tensor:
    return y


def _required(slope: Tensor | None) -> Tensor:
    if slope is None:
        raise ValueError("PReLU needs its slope")
    return slope


FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "acosh": torch.acosh,
    "asin": torch.asin,
    "asinh": torch.asinh,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "floor": torch.floor,
    "log": torch.log,
    "reciprocal": torch.reciprocal,
    "round": torch.round,  # halves to even, as ONNX and numpy do
    "rsqrt": torch.rsqrt,
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
}


def activation(op: Activation, call: Call) -> Outputs:
    """y = act(o)."""
    return (apply(op, call.x[0], call.parameters.get("slope")),)


def elementwise(op: Elementwise, call: Call) -> Outputs:
    """One function of each element.

    Raises:
        NotExecutable: The function has no entry in `FUNCTIONS`.
    """
    function = FUNCTIONS.get(op.function)
    if function is None:
        raise NotExecutable(f"{call.name} (elementwise function {op.function})")
    return (function(call.x[0]),)


# An activation without a forward form above is left out, and dispatch.py then refuses to load.
EXECUTORS: Executors = {
    Elementwise: elementwise,
    **{kind: activation for kind in apply.registry if kind is not object},
}
