"""Look-up tables: their gradient shows which rows were read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from leakaudit.facts.fact import Derivation
from leakaudit.facts.general import selected_gradient
from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Graph, Node
from leakaudit.operators.base import Bound, Opaque, Ranks, Roles, Shapes

__all__ = ["Embedding"]


@dataclass(frozen=True, slots=True)
class Embedding(Opaque):
    """Rows of a stored table by integer index. Node parameter: `weight` (rows, D).

    Input: integer indices (..); output: (.., D). A constant index is an input that is a parameter.
    """

    reason: ClassVar[str] = (
        "an embedding reads integers: the gradient of its table shows which rows were read, and "
        "there are no real values below it"
    )

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        return [(*inputs[0], parameters["weight"][1])]

    def parameter_gradients(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        """Rows of the table's gradient; that none is read twice is for the replay to check."""
        if node.inputs[0] in known.graph.parameters:
            yield from selected_gradient(node, known, node.parameter("weight"))

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return None
