"""What a saturated output says of the pre-activation: an inequality.

A ReLU that puts out 0 hides how far below 0 its input was, but not that it was; Clip (ReLU6) and
HardSigmoid do so at both ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leakaudit.equations.convolution import add_channel_bias
from leakaudit.execute import execute
from leakaudit.graph import Graph, Node
from leakaudit.operators import Activation, BatchNorm, HardSigmoid, Identity


@dataclass(frozen=True, slots=True)
class Inequalities:
    """low <= o <= high elementwise, both of o's shape (B, F, O..), infinite where nothing is known.

    Attributes:
        low: Lower bounds.
        high: Upper bounds.
    """

    low: Tensor
    high: Tensor

    @property
    def count(self) -> int:
        """How many outputs they speak of."""
        return int((torch.isfinite(self.low) | torch.isfinite(self.high)).sum())

    def without_bias(self, bias: Tensor | None) -> Inequalities:
        """The same on o - b."""
        return Inequalities(
            add_channel_bias(self.low, bias, -1), add_channel_bias(self.high, bias, -1)
        )


def saturation_inequalities(
    graph: Graph, node: Node, weights: Mapping[str, Tensor], values: Mapping[str, Tensor]
) -> Inequalities | None:
    """The inequalities on a layer's output o that the activation behind it shows.

    Batch normalisation in evaluation mode may stand between: it is affine with known constants.

    Args:
        graph: The network.
        node: The layer.
        weights: Parameters by name, float64.
        values: Activations by name, float64; only the activation's output is read.

    Returns:
        None where the activation does not saturate, its output is not among the values, or
        something else stands behind the layer.
    """
    tensor = node.outputs[0]
    shape = graph.tensors[tensor].shape
    device = weights[node.parameter("weight") or ""].device
    # What the activation reads is slope · o + offset.
    slope = torch.ones(shape, dtype=torch.float64, device=device)
    offset = torch.zeros_like(slope)
    while len(graph.uses[tensor]) == 1:
        reader = graph.uses[tensor][0].node
        op = reader.op
        if isinstance(op, Activation) and not isinstance(op, Identity):
            levels = op.saturation_levels
            y = values.get(reader.outputs[0])
            return None if levels is None or y is None else _bounds(op, levels, y, slope, offset)
        if isinstance(op, BatchNorm):
            (at_offset,) = execute(graph, reader, [offset], weights)
            (at_sum,) = execute(graph, reader, [offset + slope], weights)
            slope, offset = at_sum - at_offset, at_offset
        elif not isinstance(op, Identity):
            return None
        tensor = reader.outputs[0]
        if graph.tensors[tensor].shape != shape:
            return None
    return None


def _bounds(
    op: Activation, levels: tuple[float, float], y: Tensor, slope: Tensor, offset: Tensor
) -> Inequalities:
    first, last = levels
    below, above = y <= first, y >= last
    if isinstance(op, HardSigmoid):
        first, last = -op.beta / op.alpha, (1 - op.beta) / op.alpha
    infinity = torch.full_like(y, math.inf)
    # slope · o + offset <= first where it is below; dividing by a negative slope turns it round.
    at_first, at_last = (first - offset) / slope, (last - offset) / slope
    rising = slope > 0
    falling = slope < 0
    high = torch.where(below & rising, at_first, infinity)
    high = torch.where(above & falling, at_last, high)
    low = torch.where(below & falling, at_first, -infinity)
    low = torch.where(above & rising, at_last, low)
    return Inequalities(low, high)
