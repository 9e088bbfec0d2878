"""Operators that choose elements: they drop some, or stand them beside others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from leakaudit.facts.fact import Derivation, Quality, gradient, value
from leakaudit.facts.general import activations, selected_gradient, size
from leakaudit.facts.gradient_rank import ALL, listed, mapped, reshaped
from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Graph, Node
from leakaudit.operators.base import Bound, ByElement, Ranks, Roles, Shapes, require
from leakaudit.operators.moved import Moves, MovesAll

__all__ = ["Gather", "Pad", "Slice", "Where"]


@dataclass(frozen=True, slots=True)
class Drops(Moves):
    """Base of those that may drop elements."""

    abstract: ClassVar[bool] = True

    def stop(self, node: Node, known: Knowledge) -> str | None:
        """Dropped elements stop a path; what is kept of them is known."""
        if self.keeps(known.graph, node, 0) or known.exact(gradient(node.outputs[0])):
            return None
        return "it drops elements, and the gradient of its output is not known"


@dataclass(frozen=True, slots=True)
class Slice(Drops):
    """x[starts[i] : stops[i] : steps[i]] on every axis i.

    Starts lie in 0..size; steps are not 0. For a negative step the stop may be -1, which then
    means "down to and including element 0".
    """

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    steps: tuple[int, ...]

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        axes = zip(self.starts, self.stops, self.steps, strict=True)
        return [tuple(len(range(*bounds)) for bounds in axes)]

    def keeps(self, graph: Graph, node: Node, index: int) -> Quality | None:
        whole = prod(graph.shape(node.inputs[0])) == prod(graph.shape(node.outputs[0]))
        return Quality.EXACT if whole else None

    def parameter_gradients(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        return selected_gradient(node, known, node.inputs[0])

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        y, shape = outputs[0], graph.shape(node.inputs[index])
        for axis, (start, step) in enumerate(zip(self.starts, self.steps, strict=True)):
            mask = listed(y.supports[axis], y.shape[axis])
            y = mapped(y, axis, shape[axis], _put_back(mask, start, step))
        return y


def _put_back(mask: int, start: int, step: int) -> int:
    if mask == ALL or (start, step) == (0, 1):
        return mask
    return sum(1 << (start + i * step) for i in range(mask.bit_length()) if mask >> i & 1)


@dataclass(frozen=True, slots=True)
class Gather(Drops):
    """Elements `indices` (>= 0, row-major under `shape`) of `axis` (>= 0).

    The axis is replaced by the axes of `shape`; () selects one element and drops the axis.
    """

    axis: int
    indices: tuple[int, ...]
    shape: tuple[int, ...]

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        source = inputs[0]
        return [(*source[: self.axis], *self.shape, *source[self.axis + 1 :])]

    def keeps(self, graph: Graph, node: Node, index: int) -> Quality | None:
        whole = set(self.indices) == set(range(graph.shape(node.inputs[0])[self.axis]))
        return Quality.EXACT if whole else None

    def parameter_gradients(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        if len(set(self.indices)) == len(self.indices):
            yield from selected_gradient(node, known, node.inputs[0])

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        axis, shape = self.axis, graph.shape(node.inputs[index])
        y = reshaped(outputs[0], (*shape[:axis], len(self.indices), *shape[axis + 1 :]))
        chosen = {i for at, i in enumerate(self.indices) if y.supports[axis] >> at & 1}
        return mapped(y, axis, shape[axis], sum(1 << i for i in chosen))


@dataclass(frozen=True, slots=True)
class Pad(MovesAll):
    """Pad every axis by `begin` and `end` (>= 0); `mode` is constant, reflect, edge or wrap."""

    begin: tuple[int, ...]
    end: tuple[int, ...]
    mode: str = "constant"
    value: float = 0.0

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        axes = list(zip(inputs[0], self.begin, self.end, strict=True))
        for length, first, last in axes:
            widest = max(first, last)
            if self.mode in ("reflect", "wrap"):
                require(widest <= length - (self.mode == "reflect"))
            require(self.mode == "constant" or length > 0 or widest == 0)
        return [tuple(sum(lengths) for lengths in axes)]

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        y = outputs[0]
        for axis, length in enumerate(graph.shape(node.inputs[index])):
            if y.shape[axis] != length:
                y = mapped(y, axis, length)
        return y


@dataclass(frozen=True, slots=True)
class Where(ByElement, Moves):
    """x where a stored condition holds, y elsewhere: inputs condition (boolean), x, y, broadcast.

    The condition is a parameter, x and y are tensors or parameters. `kept` counts the elements of
    the output that come from x.
    """

    unread: ClassVar[Quality] = Quality.KEPT
    # Beside elements of the other operand, what is known up to a scale no longer is.
    passes: ClassVar[Quality] = Quality.ACTIVE

    kept: int

    def keeps(self, graph: Graph, node: Node, index: int) -> Quality | None:
        shape = graph.shape(node.outputs[0])
        kept, every = self._kept(index, prod(shape)), prod(shape)
        # A copy spread over the output is not put together again: its own shape is asked for.
        if kept == 0 or graph.shape(node.inputs[index]) != shape:
            return None
        return Quality.EXACT if kept == every else Quality.KEPT

    def _kept(self, index: int, every: int) -> int:
        """How many of all elements of the output come from input `index`."""
        return self.kept if index == 1 else every - self.kept

    def stop(self, node: Node, known: Knowledge) -> str | None:
        """It hides elements: of a known output the hidden ones do not follow."""
        (y,) = node.outputs
        if not known.exact(gradient(y)):
            return "the gradient of its output is not known"
        every = size(known, y)
        hidden = max(every - self._kept(i, every) for i in activations(known, node))
        if known.quality(value(y)) is None or not hidden:
            return None
        return f"a stored condition hides {hidden} of {every} elements: they have no influence"
