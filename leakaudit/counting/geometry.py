"""Which pixels and which taps of a convolution meet, axis by axis.

Everything a bound needs factorises over the axes: the taps form a grid, so do the pixels that one
stride phase reads. The batch is one more axis, of kernel 1: its examples share the weights and
meet in the same gradient constraints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from leakaudit.graph import Graph, Node

Quantity = Any  # int or sympy.Expr: the arithmetic is the same, its type depends on the caller


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a convolution: `size` pixels, `kernel` taps."""

    size: int
    kernel: int = 1
    stride: int = 1
    padding_begin: int = 0
    padding_end: int = 0
    dilation: int = 1

    @property
    def positions(self) -> int:
        """Output positions along this axis."""
        padding = self.padding_begin + self.padding_end
        positions = output_size(self.size, self.kernel, self.stride, padding, self.dilation)
        return int(positions)

    def reads(self, tap: int) -> range:
        """Output positions at which this tap reads a real (unpadded) pixel."""
        offset = tap * self.dilation - self.padding_begin  # pixel = position * stride + offset
        first = max(0, -(offset // self.stride))
        last = min(self.positions, (self.size - 1 - offset) // self.stride + 1)
        return range(first, max(first, last))

    def phase(self, tap: int) -> int:
        """The stride phase of a tap: taps of different phases never read the same pixel."""
        return tap * self.dilation % self.stride

    def phases(self) -> dict[int, tuple[int, Counter[int]]]:
        """Per stride phase: the pixels it reads, and its taps counted by how often they read."""
        pixels: dict[int, set[int]] = {}
        taps: dict[int, Counter[int]] = {}
        for tap in range(self.kernel):
            positions = self.reads(tap)
            offset = tap * self.dilation - self.padding_begin
            phase = self.phase(tap)
            pixels.setdefault(phase, set()).update(p * self.stride + offset for p in positions)
            taps.setdefault(phase, Counter())[len(positions)] += 1
        return {phase: (len(pixels[phase]), taps[phase]) for phase in pixels}

    def real_taps(self) -> Counter[int]:
        """Output positions counted by the number of their taps that read a real pixel."""
        per_position = [0] * self.positions
        for tap in range(self.kernel):
            for position in self.reads(tap):
                per_position[position] += 1
        return Counter(per_position)


def output_size(
    size: Quantity, kernel: Quantity, stride: Quantity, padding: Quantity, dilation: Quantity
) -> Quantity:
    """Output positions along one axis; integers, or sympy expressions for the derivation.

    `padding` is the sum of both ends. torch.nn.Conv2d's documentation states the equation.
    """
    return (size + padding - dilation * (kernel - 1) - 1) // stride + 1


def product_counts(counters: Iterable[Counter[int]]) -> Counter[int]:
    """The counter of products over a grid whose axes have these counters."""

    def multiply(left: Counter[int], right: Counter[int]) -> Counter[int]:
        result: Counter[int] = Counter()
        for a, times_a in left.items():
            for b, times_b in right.items():
                result[a * b] += times_a * times_b
        return result

    return reduce(multiply, counters, Counter({1: 1}))


@dataclass(frozen=True, slots=True)
class ConvolutionGeometry:
    """A convolution as counting sees it. A dense layer is one of kernel 1 over its tokens.

    Attributes:
        channels: N, input channels.
        filters: F, output channels.
        axes: The batch, then the spatial axes.
        groups: g.
        observed: Whether the weight's gradient is shared (False for frozen weights).
        outputs_known: Whether weight constraints may be used at all.
        gradient_rank: Upper bound on the rank of dl/do over the positions, where something above
            the layer limits it (averaging sends every position the same gradient); None: nothing.
    """

    channels: int
    filters: int
    axes: tuple[Axis, ...]
    groups: int = 1
    observed: bool = True
    outputs_known: bool = True
    gradient_rank: int | None = None


def geometry_of(graph: Graph, node: Node) -> ConvolutionGeometry:
    """The geometry of a layer with weights.

    Raises:
        TypeError: The node has no weights to count.
    """
    weight = node.parameter("weight")
    if not node.op.is_layer or weight is None:
        raise TypeError(f"{node.name} has no weights to count")
    stored = graph.parameters[weight]
    layer: ConvolutionGeometry = node.op.geometry(graph.shape(node.inputs[0]), stored.shape)
    # An output is found by way of gradients: where none is sent, there is nothing to start from.
    sends = any(parameter.trainable for parameter in graph.parameters.values())
    return replace(layer, observed=stored.trainable, outputs_known=sends)
