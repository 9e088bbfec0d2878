"""Operators that move every element: other shapes, other orders, copies, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from leakaudit.facts.fact import Derivation, Quality
from leakaudit.facts.general import selected_gradient
from leakaudit.facts.gradient_rank import ALL, listed, mapped, renamed, reshaped, summed_to, total
from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Followed, Graph, Node
from leakaudit.operators.base import Bound, Ranks, Roles, Shapes, broadcast, require
from leakaudit.operators.moved import MovesAll

__all__ = ["Concat", "Expand", "Reshape", "Split", "Transpose"]


@dataclass(frozen=True, slots=True)
class Rearranges(MovesAll):
    """Base of those whose output holds each element of its one input once, and no others.

    However badly the output is known, so is the input.
    """

    abstract: ClassVar[bool] = True
    only_rearranges: ClassVar[bool] = True
    passes: ClassVar[Quality] = Quality.SCALED

    def parameter_gradients(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        return selected_gradient(node, known, node.inputs[0])


@dataclass(frozen=True, slots=True)
class Reshape(Rearranges):
    """Same elements in row-major order under a new shape: Flatten, Reshape, Squeeze, Unsqueeze."""

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        (target,) = stated
        require(prod(inputs[0]) == prod(target))
        return [target]

    def follow(
        self, old: Shapes, new: Shapes, parameters: Roles, stated: Shapes, width: int | None = None
    ) -> Followed:
        """Axes that were merged stay merged; an axis that was split keeps its size."""
        source, target = old[0], stated[0]
        result: list[int] = []
        i = j = 0
        while i < len(source) or j < len(target):
            first_in, first_out = i, j
            i, j = i + 1, j + 1
            while prod(source[first_in:i]) != prod(target[first_out:j]):
                if prod(source[first_in:i]) < prod(target[first_out:j]):
                    i += 1
                else:
                    j += 1
            if j >= len(target):  # trailing axes of size 1
                i = len(source)
            elif i >= len(source):
                j = len(target)
            merged, parts = new[0][first_in:i], target[first_out:j]
            if merged == source[first_in:i]:
                result.extend(parts)
            elif sum(part != 1 for part in parts) <= 1 and parts:
                wide = next((k for k, part in enumerate(parts) if part != 1), 0)
                result.extend(prod(merged) if k == wide else 1 for k in range(len(parts)))
            else:
                raise ValueError("splits an axis whose size would change")
        return self, {}, tuple(result)

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return reshaped(outputs[0], graph.shape(node.inputs[index]))


@dataclass(frozen=True, slots=True)
class Transpose(Rearranges):
    """Output axis i is input axis `permutation[i]`."""

    any_size: ClassVar[bool] = True

    permutation: tuple[int, ...]

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        return [tuple(inputs[0][axis] for axis in self.permutation)]

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return renamed(outputs[0], graph.shape(node.inputs[index]), lambda a: self.permutation[a])


@dataclass(frozen=True, slots=True)
class Expand(MovesAll):
    """Broadcast to the shape of the output tensor."""

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        (target,) = stated
        return [broadcast(inputs[0], target)]

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return summed_to(outputs[0], graph.shape(node.inputs[index]))


@dataclass(frozen=True, slots=True)
class Concat(MovesAll):
    """Inputs, tensors or parameters, one after the other along `axis` (>= 0)."""

    any_size: ClassVar[bool] = True

    axis: int

    def follow(
        self, old: Shapes, new: Shapes, parameters: Roles, stated: Shapes, width: int | None = None
    ) -> Followed:
        try:
            return MovesAll.follow(self, old, new, parameters, stated)
        except ValueError as error:
            raise ValueError("concatenates tensors, which would no longer fit") from error

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        axis, source = self.axis, inputs[0]
        rest = {(*shape[:axis], *shape[axis + 1 :]) for shape in inputs}
        require(len(rest) == 1 and all(len(shape) > axis for shape in inputs))
        size = sum(shape[axis] for shape in inputs)
        return [(*source[:axis], size, *source[axis + 1 :])]

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        axis, y = self.axis, outputs[0]
        size = graph.shape(node.inputs[index])[axis]
        start = sum(graph.shape(name)[axis] for name in node.inputs[:index])
        mask = y.supports[axis]
        return mapped(y, axis, size, mask if mask == ALL else mask >> start & ((1 << size) - 1))


@dataclass(frozen=True, slots=True)
class Split(MovesAll):
    """Consecutive parts of these sizes along `axis` (>= 0); one output per part."""

    axis: int
    sizes: tuple[int, ...]

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        axis, source = self.axis, inputs[0]
        require(sum(self.sizes) == source[axis] and min(self.sizes, default=0) >= 0)
        return [(*source[:axis], size, *source[axis + 1 :]) for size in self.sizes]

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        axis, shape = self.axis, graph.shape(node.inputs[index])
        parts, start = [], 0
        for part, size in zip(outputs, self.sizes, strict=True):
            mask = listed(part.supports[axis], size)
            parts.append(mapped(part, axis, shape[axis], mask if mask == ALL else mask << start))
            start += size
        return total(shape, parts)
