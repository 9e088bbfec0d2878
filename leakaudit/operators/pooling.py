"""Pooling over the spatial axes of (B, N, H_1..H_d): windows are merged to one value each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Followed, Graph, Node
from leakaudit.operators.base import (
    AlongAxes,
    Bound,
    Opaque,
    Ranks,
    Roles,
    Shapes,
    Window,
    averaging,
    require,
    resized,
)

__all__ = ["AdaptiveAveragePool", "AveragePool", "LpPool", "MaxPool"]


@dataclass(frozen=True, slots=True)
class MaxPool(Window, Opaque):
    """Largest value of each window; padding counts as minus infinity.

    With `ceil` (round the number of positions up) the last window may reach past the padding.
    """

    reason: ClassVar[str] = (
        "max pooling hides which position held the maximum, and every value below it"
    )

    ceil: bool = False

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        return _pooled(self, self.ceil, inputs)

    def follow(
        self, old: Shapes, new: Shapes, parameters: Roles, stated: Shapes, width: int | None = None
    ) -> Followed:
        return _followed(self, self.ceil, old, new, stated)

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return None


@dataclass(frozen=True, slots=True)
class AveragePool(Window, AlongAxes):
    """Mean of each window; `include_padding` says whether padding counts in the divisor.

    What a window reaches past the padding (with `ceil`) never counts.
    """

    include_padding: bool = True
    ceil: bool = False

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        return _pooled(self, self.ceil, inputs)

    def follow(
        self, old: Shapes, new: Shapes, parameters: Roles, stated: Shapes, width: int | None = None
    ) -> Followed:
        return _followed(self, self.ceil, old, new, stated)

    def stop(self, node: Node, known: Knowledge) -> str | None:
        return averaging(node, known)


@dataclass(frozen=True, slots=True)
class AdaptiveAveragePool(AlongAxes):
    """PyTorch's adaptive average pooling to the spatial sizes of the output tensor."""

    # The pooling's own setting is its output size, or 1: what it had, it keeps.
    any_size: ClassVar[bool] = True

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        return resized(inputs, stated)

    def stop(self, node: Node, known: Knowledge) -> str | None:
        return averaging(node, known)


@dataclass(frozen=True, slots=True)
class LpPool(Window, Opaque):
    """(sum of |x|^p)^(1/p) of each window, zero padding."""

    reason: ClassVar[str] = "pooling merges the values of a window"

    p: float = 2.0
    ceil: bool = False

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        return _pooled(self, self.ceil, inputs)

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return None


def _pooled(op: Window, ceil: bool, inputs: Shapes) -> Shapes:
    (source,) = inputs
    sizes: list[int] = []
    for axis in op.spatial_axes(source[2:]):
        reach = axis.dilation * (axis.kernel - 1)
        room = axis.size + axis.padding_begin + axis.padding_end - reach - 1
        require(room >= 0 and 2 * max(axis.padding_begin, axis.padding_end) <= reach + 1)
        count = axis.positions
        if ceil:
            count = -(-room // axis.stride) + 1
            # The last window must start inside the input or its left padding.
            count -= (count - 1) * axis.stride >= axis.size + axis.padding_begin
        sizes.append(count)
    return [(*source[:2], *sizes)]


def _followed(op: Window, ceil: bool, old: Shapes, new: Shapes, stated: Shapes) -> Followed:
    spatial = new[0][2:]
    if ceil and spatial != old[0][2:]:
        raise ValueError("rounds its number of positions up")
    floor = tuple(axis.positions for axis in op.spatial_axes(spatial))
    return op, {}, (*new[0][:2], *(stated[0][2:] if ceil else floor))
