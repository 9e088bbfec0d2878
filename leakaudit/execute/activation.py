"""Functions of each element; activations three ways: forward, inverted, derivative in the output.

The table of activations is R-CONV's (WISE 2024, table 1), with SoftPlus corrected: 1/(1+e^-X) is
its derivative in the pre-activation; in the output X it is 1 - e^-X. Where an activation is flat
(Clip and HardSigmoid where they saturate) the derivative is 0 and the inverse NaN. Activations that
are not monotone (SiLU, GELU, Mish, HardSwish) have an inverse of their positive side alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit import operators as ops
from leakaudit.equations.axes import per_channel
from leakaudit.execute.interface import Call, Executors, NotExecutable, Outputs

# Of an interval of the size of the number sought, down to float64's precision.
_HALVINGS = 53

# An activation's function of o or of its output y, given PReLU's slope.
Form = Callable[[Any, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True, slots=True)
class Curve:
    """The three forms of an activation; `apply`, `derivative` and `inverse` below say of what.

    `derivative` is None for activations that are not monotone.
    """

    apply: Form
    derivative: Form | None = None
    inverse: Form | None = None


def apply(op: ops.Activation, o: Tensor, slope: Tensor | None) -> Tensor:
    """y = act(o), elementwise. `slope` is PReLU's parameter.

    Raises:
        NotImplementedError: The activation is not in the table.
    """
    return _form(op, "apply")(op, o, slope)


def derivative(op: ops.Activation, y: Tensor, slope: Tensor | None) -> Tensor:
    """act'(o) as a function of the output y, elementwise, at least 0 for monotone activations.

    Raises:
        NotImplementedError: The activation is not in the table, or not monotone.
    """
    return _form(op, "derivative")(op, y, slope)


def inverse(op: ops.Activation, y: Tensor, slope: Tensor | None) -> Tensor:
    """o with act(o) = y; not finite where y has no (finite) pre-image, or more than one.

    Raises:
        NotImplementedError: The activation is not in the table, or neither monotone nor rising
            wherever it is positive.
    """
    return _form(op, "inverse")(op, y, slope)


def _form(op: ops.Activation, name: str) -> Form:
    form: Form | None = getattr(CURVES.get(type(op)), name, None)
    if form is None:
        raise NotImplementedError(type(op).__name__)
    return form


def _required(slope: Tensor | None) -> Tensor:
    if slope is None:
        raise ValueError("PReLU needs its slope")
    return slope


def _clip_apply(op: ops.Clip, o: Tensor, slope: Tensor | None) -> Tensor:
    if o.is_floating_point():
        # Not clamp: its gradient is 1 at the ends, where `derivative` has 0.
        return F.hardtanh(o, op.low, op.high)
    return o.clamp(*(int(end) if math.isfinite(end) else None for end in (op.low, op.high)))


def _positive_inverse(op: ops.activation.Winding, y: Tensor, slope: Tensor | None) -> Tensor:
    """The o > 0 with act(o) = y > 0 by bisection of [y, 2y], NaN for other y."""
    if not op.rises_where_positive:
        raise NotImplementedError(f"{op} falls where it is positive")
    low, high = y, 2 * y
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = apply(op, middle, slope) < y
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return torch.where(y > 0, (low + high) / 2, torch.full_like(y, torch.nan))


CURVES: Mapping[type[ops.Activation], Curve] = {
    ops.Relu: Curve(
        apply=lambda _op, o, _slope: o.relu(),
        derivative=lambda _op, y, _slope: (y > 0).to(y.dtype),
        inverse=lambda _op, y, _slope: torch.where(y > 0, y, torch.nan),
    ),
    ops.LeakyRelu: Curve(
        apply=lambda op, o, _slope: F.leaky_relu(o, op.slope),
        derivative=lambda op, y, _slope: torch.where(y > 0, torch.ones_like(y), op.slope),
        inverse=lambda op, y, _slope: torch.where(y > 0, y, y / op.slope),
    ),
    ops.PRelu: Curve(
        apply=lambda _op, o, slope: torch.where(o > 0, o, o * per_channel(_required(slope), o)),
        derivative=lambda _op, y, slope: torch.where(y > 0, 1.0, per_channel(_required(slope), y)),
        inverse=lambda _op, y, slope: torch.where(y > 0, y, y / per_channel(_required(slope), y)),
    ),
    ops.Elu: Curve(
        apply=lambda op, o, _slope: F.elu(o, op.alpha),
        derivative=lambda op, y, _slope: torch.where(y > 0, 1.0, (y + op.alpha).clamp_min(0)),
        inverse=lambda op, y, _slope: torch.where(y > 0, y, torch.log1p(y / op.alpha)),
    ),
    ops.Sigmoid: Curve(
        apply=lambda _op, o, _slope: o.sigmoid(),
        derivative=lambda _op, y, _slope: (y * (1 - y)).clamp_min(0),
        inverse=lambda _op, y, _slope: torch.logit(y),
    ),
    ops.Tanh: Curve(
        apply=lambda _op, o, _slope: o.tanh(),
        derivative=lambda _op, y, _slope: (1 - y * y).clamp_min(0),
        inverse=lambda _op, y, _slope: y.atanh(),
    ),
    ops.ArcTan: Curve(
        apply=lambda _op, o, _slope: o.atan(),
        derivative=lambda _op, y, _slope: y.cos().square(),  # 1/(1 + tan²y)
        inverse=lambda _op, y, _slope: torch.where(y.abs() < torch.pi / 2, y.tan(), torch.nan),
    ),
    ops.Softplus: Curve(
        apply=lambda _op, o, _slope: F.softplus(o),
        derivative=lambda _op, y, _slope: (-torch.expm1(-y)).clamp_min(0),
        inverse=lambda _op, y, _slope: y + torch.log(-torch.expm1(-y)),
    ),
    ops.Celu: Curve(
        apply=lambda op, o, _slope: F.celu(o, op.alpha),
        derivative=lambda op, y, _slope: torch.where(y > 0, 1.0, (y / op.alpha + 1).clamp_min(0)),
        inverse=lambda op, y, _slope: torch.where(y > 0, y, op.alpha * torch.log1p(y / op.alpha)),
    ),
    ops.Selu: Curve(
        apply=lambda op, o, _slope: op.gamma * F.elu(o, op.alpha),
        derivative=lambda op, y, _slope: torch.where(
            y > 0, op.gamma, (y + op.gamma * op.alpha).clamp_min(0)
        ),
        inverse=lambda op, y, _slope: torch.where(
            y > 0, y / op.gamma, torch.log1p(y / (op.gamma * op.alpha))
        ),
    ),
    ops.Softsign: Curve(
        apply=lambda _op, o, _slope: F.softsign(o),
        derivative=lambda _op, y, _slope: (1 - y.abs()).clamp_min(0).square(),
        inverse=lambda _op, y, _slope: torch.where(y.abs() < 1, y / (1 - y.abs()), torch.nan),
    ),
    ops.Clip: Curve(
        apply=_clip_apply,
        derivative=lambda op, y, _slope: ((y > op.low) & (y < op.high)).to(y.dtype),
        inverse=lambda op, y, _slope: torch.where((y > op.low) & (y < op.high), y, torch.nan),
    ),
    ops.HardSigmoid: Curve(
        apply=lambda op, o, _slope: F.hardtanh(op.alpha * o + op.beta, 0.0, 1.0),
        derivative=lambda op, y, _slope: op.alpha * ((y > 0) & (y < 1)).to(y.dtype),
        inverse=lambda op, y, _slope: torch.where(
            (y > 0) & (y < 1), (y - op.beta) / op.alpha, torch.nan
        ),
    ),
    ops.Silu: Curve(
        apply=lambda op, o, _slope: o * torch.sigmoid(op.beta * o),
        inverse=_positive_inverse,
    ),
    ops.Gelu: Curve(
        apply=lambda op, o, _slope: F.gelu(o, approximate="tanh" if op.approximate else "none"),
        inverse=_positive_inverse,
    ),
    ops.Mish: Curve(
        apply=lambda _op, o, _slope: F.mish(o),
        inverse=_positive_inverse,
    ),
    ops.HardSwish: Curve(
        apply=lambda _op, o, _slope: F.hardswish(o),
        inverse=_positive_inverse,
    ),
    ops.Identity: Curve(
        apply=lambda _op, o, _slope: o,
        derivative=lambda _op, y, _slope: torch.ones_like(y),
        inverse=lambda _op, y, _slope: y,
    ),
}

# torch calls all of them as operators do, and rounds halves to even, as ONNX and numpy do.
_NAMES = (
    "abs acos acosh asin asinh atanh ceil cos cosh erf exp floor log reciprocal round rsqrt sign "
    "sin sinh sqrt square tan"
)
FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    name: getattr(torch, name) for name in _NAMES.split()
}


def activation(op: ops.Activation, call: Call) -> Outputs:
    """y = act(o)."""
    return (apply(op, call.x[0], call.parameters.get("slope")),)


def elementwise(op: ops.Elementwise, call: Call) -> Outputs:
    """One function of each element.

    Raises:
        NotExecutable: The function has no entry in `FUNCTIONS`.
    """
    function = FUNCTIONS.get(op.function)
    if function is None:
        raise NotExecutable(f"{call.name} (elementwise function {op.function})")
    return (function(call.x[0]),)


# An activation without a curve is left out, and dispatch.py then refuses to load.
EXECUTORS: Executors = {ops.Elementwise: elementwise, **dict.fromkeys(CURVES, activation)}
