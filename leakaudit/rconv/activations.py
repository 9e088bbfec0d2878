"""Activation functions three ways: forward, inverted, and their derivative written in the output.

The table is R-CONV's (WISE 2024, table 1), with SoftPlus corrected: 1/(1+e^-X) is its derivative in
the pre-activation; in the output X it is 1 - e^-X.
"""

from __future__ import annotations

from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.graph.operators import (
    Activation,
    ArcTan,
    Elu,
    Identity,
    LeakyRelu,
    PRelu,
    Relu,
    Sigmoid,
    Softplus,
    Tanh,
)


def channelwise(slope: Tensor, like: Tensor) -> Tensor:
    """A PReLU slope, one value or one per channel, shaped to broadcast over (B, N, ..)."""
    return slope if slope.numel() == 1 else slope.view(1, -1, *[1] * (like.dim() - 2))


@singledispatch
def apply(op: Activation, o: Tensor, slope: Tensor | None) -> Tensor:
    """y = act(o), elementwise. `slope` is PReLU's parameter.

    Raises:
        NotImplementedError: The activation is not in the table.
    """
    raise NotImplementedError(type(op).__name__)


@singledispatch
def derivative(op: Activation, y: Tensor, slope: Tensor | None) -> Tensor:
    """act'(o) as a function of the output y, elementwise, at least 0 for monotone activations."""
    raise NotImplementedError(type(op).__name__)


@singledispatch
def inverse(op: Activation, y: Tensor, slope: Tensor | None) -> Tensor:
    """o with act(o) = y; not finite where y has no (finite) pre-image."""
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
    return torch.where(o > 0, o, o * channelwise(_required(slope), o))


@derivative.register
def _(op: PRelu, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where(y > 0, torch.ones_like(y), channelwise(_required(slope), y).expand_as(y))


@inverse.register
def _(op: PRelu, y: Tensor, slope: Tensor | None) -> Tensor:
    return torch.where(y > 0, y, y / channelwise(_required(slope), y))


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
