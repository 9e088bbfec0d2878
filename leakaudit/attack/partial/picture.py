"""Among the pictures that fit a layer's equations, the one that changes least.

Photographs are among those that change least: flat areas, with edges that all colour channels
share. Total variation measures it, a prior that needs no training data (Rudin, Osher and Fatemi
1992; over all channels together: Blomgren and Chan 1998). The picture fits the equations as far as
the gradients are precise, and keeps within what else is known: the range of its values, and the
inequalities of saturated outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from leakaudit.attack.partial.admm import ITERATION_LIMIT, Term, minimise
from leakaudit.attack.partial.inequalities import Inequalities
from leakaudit.equations.axes import per_channel
from leakaudit.equations.linear_maps import (
    Constraints,
    WeightConstraints,
    gradient_equations,
    row_scale,
    weight_equations,
)
from leakaudit.equations.system import LayerSystem

Range = tuple[float, float]

# Rounding to a type of machine epsilon e moves numbers by 0.3 e of their size, in the mean square.
_ROUNDING = 0.3
# Relative weights of the terms, found on 32x32 photographs; minima do not depend on them. The step
# of the total variation is 1/30 of the range of the values: the size of a visible edge.
_SMOOTH, _EQUATIONS = 30.0, 300.0


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that fits.

    Attributes:
        x: (B, N, H, W) float64.
        iterations: How many it took.
        converged: Whether it had converged before the iteration limit.
        residual: Relative residual of the scaled equations.
    """

    x: Tensor
    iterations: int
    converged: bool
    residual: float


def smoothest_picture(
    system: LayerSystem,
    start: Tensor,
    residual: float,
    value_range: Range | None = None,
    inequalities: Inequalities | None = None,
    limit: int = ITERATION_LIMIT,
) -> Picture:
    """Minimise total variation subject to the equations of a layer.

    Args:
        system: The equations; its input has two spatial axes.
        start: A solution of them (the one of least norm), (B, N, H, W).
        residual: Its relative residual: what the equations contradict each other by.
        value_range: Ends between which every value lies; either may be infinite.
        inequalities: On the layer's bias-free output, o - b.
        limit: Iterations at most.

    Returns:
        The picture, every value in the range.

    Raises:
        ValueError: There are no equations at all.
    """
    sets = _equations(system)
    if not sets:
        raise ValueError("no equations: neither dl/do nor o is known")
    scale = _scale(start, value_range)
    terms = [
        Term(differences, differences_adjoint, lambda d: shrink(d, scale / _SMOOTH), _SMOOTH),
        *(_near(operator, rhs, max(rounding, residual)) for operator, rhs, rounding in sets),
    ]
    if value_range is not None:
        terms.append(_within(value_range))
    if inequalities is not None:
        terms.append(_saturated(system, inequalities))
    found = minimise(terms, start, limit)
    x = found.x if value_range is None else found.x.clamp(*value_range)
    return Picture(x, found.iterations, found.converged, _residual(sets, x))


def _scale(start: Tensor, value_range: Range | None) -> float:
    """The size of the values: 1 for a picture in [0, 1]."""
    if value_range is not None and math.isfinite(value_range[1] - value_range[0]):
        return value_range[1] - value_range[0]
    return float(start.abs().max()) or 1.0


def _equations(system: LayerSystem) -> list[tuple[Constraints, Tensor, float]]:
    """Both sets where they can be set up, scaled: map, right-hand side and its relative rounding.

    What is known of the output is not rounded to the gradients' type.
    """
    gradient, weight = gradient_equations(system), weight_equations(system)
    sets: list[tuple[Constraints, Tensor, float]] = []
    if gradient is not None:
        sets.append((*gradient, _ROUNDING * system.precision))
    if weight is not None:
        sets.append((*weight, 0.0))
    return sets


def _near(operator: Constraints, rhs: Tensor, slack: float) -> Term:
    """|K x - rhs| <= slack · |rhs|."""
    radius = slack * rhs.norm()

    def proximal(v: Tensor) -> Tensor:
        off = v - rhs
        share: Tensor = radius / off.norm().clamp_min(torch.finfo(v.dtype).tiny)
        inside: Tensor = rhs + off * share.clamp_max(1)
        return inside

    return Term(operator.mv, operator.rmv, proximal, _EQUATIONS)


def _within(value_range: Range) -> Term:
    return Term(_same, _same, lambda v: v.clamp(*value_range), _SMOOTH)


def _same(x: Tensor) -> Tensor:
    return x


def _saturated(system: LayerSystem, inequalities: Inequalities) -> Term:
    scale = row_scale(system.w)
    mask = torch.isfinite(inequalities.low) | torch.isfinite(inequalities.high)
    operator = WeightConstraints(system.convolution, system.w, mask.to(system.w.dtype), scale)
    by_channel = per_channel(scale, inequalities.low)
    low = torch.where(mask, inequalities.low * by_channel, 0.0)
    high = torch.where(mask, inequalities.high * by_channel, 0.0)
    return Term(
        operator.mv, operator.rmv, lambda v: torch.minimum(torch.maximum(v, low), high), _EQUATIONS
    )


def _residual(sets: list[tuple[Constraints, Tensor, float]], x: Tensor) -> float:
    off = sum(float((operator.mv(x) - rhs).square().sum()) for operator, rhs, _ in sets)
    total = sum(float(rhs.square().sum()) for _, rhs, _ in sets)
    return math.sqrt(off / total) if total else math.sqrt(off)


def differences(x: Tensor) -> Tensor:
    """Forward differences along both spatial axes, 0 at the far borders.

    Args:
        x: (B, N, H, W).

    Returns:
        (2, B, N, H, W).
    """
    d = x.new_zeros((2, *x.shape))
    d[0, :, :, :-1] = x[:, :, 1:] - x[:, :, :-1]
    d[1, :, :, :, :-1] = x[:, :, :, 1:] - x[:, :, :, :-1]
    return d


def differences_adjoint(d: Tensor) -> Tensor:
    """The adjoint of `differences`: (2, B, N, H, W) to (B, N, H, W)."""
    x = torch.zeros_like(d[0])
    vertical, horizontal = d[0, :, :, :-1], d[1, :, :, :, :-1]
    x[:, :, 1:] += vertical
    x[:, :, :-1] -= vertical
    x[:, :, :, 1:] += horizontal
    x[:, :, :, :-1] -= horizontal
    return x


def shrink(d: Tensor, threshold: float) -> Tensor:
    """Shorten each pixel's gradient by `threshold`, to 0 at most.

    The proximal map of the total variation, the sum over the pixels of the length of their
    gradient, both axes and all channels together.
    """
    length = d.square().sum(dim=(0, 2), keepdim=True).sqrt()
    return d * (1 - threshold / length.clamp_min(threshold))
