"""All facts found so far about one graph, and the questions derivations ask of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from leakaudit.facts.fact import Derivation, Fact, Kind, Quality, gradient, value
from leakaudit.facts.gradient_rank import GradientRank, gradient_ranks
from leakaudit.graph import Graph, Node


@dataclass(slots=True)
class Knowledge:
    """Facts with the derivation that gave each. Grows during the fixpoint, read-only afterwards.

    Attributes:
        graph: The network.
        loss: `cross-entropy`, `bce` or `mse`; the threat model lets the attacker know it.
        history: Per fact the derivations that gave it, each better than the one before, with the
            number of the step at which it was found.
        gradient_ranks: Per tensor what limits the rank of its gradient over positions.
    """

    graph: Graph
    loss: str
    history: dict[Fact, list[tuple[int, Derivation]]] = field(default_factory=dict)
    found: int = 0
    gradient_ranks: Mapping[str, GradientRank] = field(init=False)

    def __post_init__(self) -> None:
        """Bound every gradient; that needs no fact."""
        self.gradient_ranks = gradient_ranks(self.graph)

    def quality(self, fact: Fact) -> Quality | None:
        """How well a fact is known; None where it is not."""
        history = self.history.get(fact)
        return history[-1][1].quality if history else None

    def derivation(self, fact: Fact, before: int) -> tuple[int, Derivation]:
        """The derivation of a fact that was current at step `before`.

        A fact may be improved by what it helped to derive; following the current derivations
        would then go round in a circle.
        """
        return next(entry for entry in reversed(self.history[fact]) if entry[0] < before)

    def rank(self, node: Node) -> int | None:
        """What limits the rank of dl/dz over positions at a layer's output z; None: only its size.

        The matrix is channels x positions.

        Raises:
            TypeError: The node is no layer.
        """
        (z,) = node.outputs
        shape = self.graph.tensors[z].shape
        if node.op.channel_axis is None:
            raise TypeError(f"{node.name} is no layer with weights")
        axis = node.op.channel_axis % len(shape)
        rank = self.gradient_ranks[z].rank(axis)
        return rank if rank < min(shape[axis], prod(shape) // max(1, shape[axis])) else None

    def exact(self, *facts: Fact) -> bool:
        """Whether all of these are known exactly."""
        return all(self.quality(fact) is Quality.EXACT for fact in facts)

    def add(self, derivation: Derivation) -> bool:
        """Record a derivation if it says something new; tell whether it did."""
        known = self.quality(derivation.conclusion)
        if known is not None and known >= derivation.quality:
            return False
        self.history.setdefault(derivation.conclusion, []).append((self.found, derivation))
        self.found += 1
        return True

    def input_gradient_fact(self, node: Node, index: int = 0) -> Fact:
        """What the gradient at `node.inputs[index]` says: its own if it has no other use."""
        tensor = node.inputs[index]
        if len(self.graph.uses[tensor]) == 1 and tensor not in self.graph.outputs:
            return gradient(tensor)
        return Fact(Kind.CONTRIBUTION, tensor, node.name, index)

    def observed(self, name: str | None) -> bool:
        """Whether this is a parameter whose gradient is shared and belongs to one use alone."""
        stored = self.graph.parameters.get(name or "")
        if stored is None or not stored.trainable:
            return False
        return self.graph.parameter_uses[stored.name] == 1

    def reached(self, node: Node) -> bool:
        """Whether the path arrives at the output side of a node."""
        return any(
            self.quality(fact) is not None
            for output in node.outputs
            for fact in (value(output), gradient(output))
        )
