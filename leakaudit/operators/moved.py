"""The one derivation of every operator that only moves elements: copies, drops, puts together.

Where an element of an input stands in the outputs is fixed by the operator and the shapes alone.
The replay finds it by sending the numbers of the elements through the operator itself, so that no
operator needs an inverse of its own; here stands how much of an input the outputs hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from leakaudit.facts.fact import Derivation, Quality, gradient, value
from leakaudit.facts.general import activations
from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Graph, Node, Operator, face


class MovedValue(Derivation):
    kind: ClassVar[str] = "moved-value"

    def sentence(self) -> str:
        if self.quality is Quality.KEPT:
            return "the elements that are kept stand in the output"
        return "the elements are only moved: moved back, they are the input"


class MovedGradient(Derivation):
    kind: ClassVar[str] = "moved-gradient"
    text: ClassVar[str] = "the gradient's elements are moved back the same way"


@dataclass(frozen=True, slots=True)
class Moves(Operator):
    """Base of the operators whose outputs hold elements of their inputs, and constants.

    Attributes:
        passes: How well the outputs have to be known at least for a value to pass.
    """

    abstract: ClassVar[bool] = True
    passes: ClassVar[Quality] = Quality.EXACT

    @face
    def keeps(self, graph: Graph, node: Node, index: int) -> Quality | None:
        """How much of input `index` stands in the outputs.

        Returns:
            EXACT: all of it. KEPT: some of it, the rest being read by nothing. None: it is not
            claimed that anything does.
        """
        raise NotImplementedError

    def derive(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        gradients = tuple(gradient(output) for output in node.outputs)
        if known.exact(*gradients):
            for i in activations(known, node):
                yield MovedGradient(node.name, known.input_gradient_fact(node, i), gradients)
        outputs = tuple(value(output) for output in node.outputs)
        quality = min(known.quality(output) or 0 for output in outputs)
        if quality < self.passes:
            return
        for i in activations(known, node):
            kept = self.keeps(known.graph, node, i)
            if kept is not None:
                best = min(Quality(quality), kept)
                yield MovedValue(node.name, value(node.inputs[i]), outputs, best)

    def stop(self, node: Node, known: Knowledge) -> str | None:
        return None


@dataclass(frozen=True, slots=True)
class MovesAll(Moves):
    """Base of those whose outputs hold every element of every input."""

    abstract: ClassVar[bool] = True

    def keeps(self, graph: Graph, node: Node, index: int) -> Quality | None:
        return Quality.EXACT
