"""Which outputs are saturated, decided from recovered values that carry rounding errors.

An output of ReLU that is on by less than the error looks like one that is off, and taking one for
the other puts a wrong entry into dl/do. Two things tell them apart: the distribution of the
recovered values, and, where the convolution below has a bias, its gradient: db[f] is the sum of
dl/do over channel f. The same question arises where Clip (ReLU6) and HardSigmoid saturate, at both
ends of their range.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from leakaudit.attack.signs.below import bias_gradient
from leakaudit.attack.state import State
from leakaudit.facts.fact import gradient, value
from leakaudit.graph import Node
from leakaudit.operators import HardSigmoid

# A gap between recovered values, as a ratio, that parts signal from rounding.
CLEAR_GAP = 10.0


def saturated_exactly(state: State, node: Node, levels: tuple[float, float]) -> Tensor:
    """The recovered output without rounding where it is saturated.

    Saturated outputs are exactly one of the levels, all others lie strictly between them.
    """
    known = state.known[value(node.outputs[0])]
    y, (low, high) = known.tensor, levels

    def off(distance: Tensor, end: float) -> Tensor:
        # Products with 0 are exact: an output of 0 comes back without rounding of its own.
        rounding = state.precision * abs(end) if math.isfinite(end) else 0.0
        error = max(known.error, 100 * rounding)
        return distance <= relu_threshold(distance, error, rounding)

    above = off(high - y, high) if high < math.inf else torch.zeros_like(y, dtype=torch.bool)
    below = off(y - low, low) if low > -math.inf else torch.zeros_like(y, dtype=torch.bool)
    g = state.known.get(gradient(node.outputs[0]))
    sums = bias_gradient(state, node)
    if low > -math.inf and known.error > 0 and g is not None and sums is not None:
        slope = node.op.alpha if isinstance(node.op, HardSigmoid) else 1.0
        flowing = slope * g.tensor * ~above
        on = match_sums(~below, y - low, flowing, sums, known.error, state.precision)
        below = ~on
    # The number next to a level stands for an output that is on but lost in rounding.
    inside = y
    if low > -math.inf:
        first = torch.finfo(y.dtype).tiny if low == 0 else math.nextafter(low, math.inf)
        inside = inside.clamp_min(first)
    if high < math.inf:
        inside = inside.clamp_max(math.nextafter(high, -math.inf))
    inside = torch.where(above, torch.full_like(y, high), inside)
    return torch.where(below, torch.full_like(y, low), inside)


def relu_threshold(y: Tensor, error: float, rounding: float = 0.0) -> float:
    """The value up to which a recovered output of ReLU is rounding around 0.

    ReLU's output is never negative, so what comes back below 0 shows from below how large the
    errors are; `error` bounds them from above. Between the two the threshold is laid into the
    widest gap (on a logarithmic scale) between recovered values.

    Args:
        y: Recovered output, any shape.
        error: Estimate of the largest error, from above.
        rounding: What every value may be off by for certain.
    """
    lower = max(2 * float((-y).clamp_min(0).max()), rounding)
    if error <= lower:
        return lower
    floor = max(lower, error * 1e-12)
    flat = y.flatten()
    between = flat[(flat > floor) & (flat <= error)].sort().values
    above = flat[flat > error]
    end = max(float(above.min()) if above.numel() else error, error)
    edges: list[float] = [floor, *between.tolist(), end]
    gaps = [(edges[i + 1] / edges[i], edges[i]) for i in range(len(edges) - 1)]
    widest, start = max(gaps, key=lambda gap: gap[0])
    return start if widest >= CLEAR_GAP else lower


def match_sums(
    mask: Tensor, y: Tensor, g: Tensor, sums: Tensor, error: float, precision: float
) -> Tensor:
    """Move the threshold of each channel to where dl/do sums up to the bias gradient.

    Args:
        mask: First guess, (B, F, O..).
        y: Recovered output, same shape.
        g: dl/dy, same shape.
        sums: db (F,).
        error: Only outputs within this of 0 may be moved.
        precision: Machine epsilon of the observed gradients.

    Returns:
        The mask; channels whose sum already fits, or fits nowhere, are left as they are.
    """
    channels = mask.shape[1]
    y, g = (x.transpose(0, 1).reshape(channels, -1) for x in (y, g))
    flat = mask.transpose(0, 1).reshape(channels, -1).clone()
    tolerance = 1e3 * precision * g.abs().sum(dim=1)
    off = ((g * flat).sum(dim=1) - sums).abs() > tolerance
    for channel in off.nonzero().flatten().tolist():
        order = y[channel].argsort(descending=True)
        certain = int((y[channel] > error).sum())
        possible = int((y[channel] > -error).sum())
        totals = torch.cat([g.new_zeros(1), g[channel][order].cumsum(0)])
        misfit = (totals[certain : possible + 1] - sums[channel]).abs()
        best = int(misfit.argmin())
        if float(misfit[best]) <= float(tolerance[channel]):
            flat[channel] = False
            flat[channel][order[: certain + best]] = True
    return flat.reshape(channels, mask.shape[0], *mask.shape[2:]).transpose(0, 1)
