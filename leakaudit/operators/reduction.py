"""Reductions over axes: sums and means are affine, the others merge values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from leakaudit.facts.fact import Derivation
from leakaudit.facts.gradient_rank import renamed, scaled
from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Graph, Node
from leakaudit.operators.base import Affine, Bound, Ranks, Roles, Shapes, averaging, sizes

__all__ = ["Reduce"]


@dataclass(frozen=True, slots=True)
class Reduce(Affine):
    """Reduce over `axes` (>= 0). `function`: sum, mean, max, min, prod, l1, l2, log_sum_exp."""

    any_size: ClassVar[bool] = True

    function: str
    axes: tuple[int, ...]
    keepdims: bool

    @property
    def affine(self) -> bool:
        """Whether it is a sum, up to a factor."""
        return self.function in ("sum", "mean")

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        return [
            tuple(
                1 if axis in self.axes else size
                for axis, size in enumerate(inputs[0])
                if self.keepdims or axis not in self.axes
            )
        ]

    def derive(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        return Affine.derive(self, node, known) if self.affine else iter(())

    def stop(self, node: Node, known: Knowledge) -> str | None:
        if self.affine:
            return averaging(node, known)
        size_in, size_out = sizes(node, known)
        return f"it reduces {size_in} values to {size_out}, and where they stood is not known"

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        """Repeated along the reduced axes."""
        y, shape = outputs[0], graph.shape(node.inputs[0])
        kept = [a for a in range(len(shape)) if a not in self.axes]
        if self.keepdims:
            lengths = [y.shape[a] for a in kept]
            y = renamed(y, lengths, lambda a: kept.index(a) if a in kept else None)
        y = renamed(y, shape, lambda a: kept[a])
        return y if self.affine else scaled(y, range(len(shape)))
