"""Which outputs of a ReLU are on, decided from recovered values that carry rounding errors.

An output that is on by less than the error looks like one that is off, and taking one for the other
puts a wrong entry into dl/do. Two things tell them apart: the distribution of the recovered values,
and, where the convolution below has a bias, its gradient: db[f] is the sum of dl/do over channel f.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.graph import Node
from leakaudit.graph.operators import Conv
from leakaudit.leakpath.facts import gradient, value
from leakaudit.rconv.state import State


def active(state: State, node: Node) -> Tensor:
    """Mask of the outputs that are on, of the shape of the node's output."""
    y = state.known[value(node.outputs[0])]
    threshold = relu_threshold(y.tensor, y.error)
    mask = y.tensor > threshold
    g = state.known.get(gradient(node.outputs[0]))
    sums = _bias_gradient(state, node)
    if y.error == 0 or g is None or sums is None:
        return mask
    return match_sums(mask, y.tensor, g.tensor, sums, y.error, state.precision)


def relu_threshold(y: Tensor, error: float) -> float:
    """The value up to which a recovered output of ReLU is rounding around 0.

    ReLU's output is never negative, so what comes back below 0 shows from below how large the
    errors are; `error` bounds them from above. Between the two the threshold is laid into the
    widest gap (on a logarithmic scale) between recovered values.

    Args:
        y: Recovered output, any shape.
        error: Estimate of the largest error, from above.
    """
    lower = 2 * float((-y).clamp_min(0).max())
    if error <= lower:
        return lower
    floor = max(lower, error * 1e-12)
    flat = y.flatten()
    between = flat[(flat > floor) & (flat <= error)].sort().values
    above = flat[flat > error]
    end = max(float(above.min()) if above.numel() else error, error)
    edges: list[float] = [floor, *between.tolist(), end]
    gaps = [(edges[i + 1] / edges[i], edges[i]) for i in range(len(edges) - 1)]
    return max(gaps, key=lambda gap: gap[0])[1]


def match_sums(
    mask: Tensor, y: Tensor, g: Tensor, sums: Tensor, error: float, precision: float
) -> Tensor:
    """Move the threshold of each channel to where dl/do sums up to the bias gradient.

    Args:
        mask: First guess, (B, F, O..).
        y: Recovered output, same shape.
        g: dl/dy, same shape.
        sums: db (F,).
        error: Only outputs within this of 0 are in doubt.
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


def _bias_gradient(state: State, node: Node) -> Tensor | None:
    """The observed bias gradient of the convolution below, if it speaks of this output alone."""
    (o,) = node.inputs
    below = state.graph.producers.get(o)
    if below is None or not isinstance(below.op, Conv) or len(state.graph.uses[o]) != 1:
        return None
    bias = below.parameter("bias")
    if bias is None or state.graph.parameter_uses[bias] != 1:
        return None
    return state.gradients.get(bias)
