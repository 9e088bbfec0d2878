"""What every attack of the comparison is given and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from leakaudit.graph import Graph


@dataclass(frozen=True, slots=True)
class AttackResult:
    """What one attack came back with.

    Attributes:
        x: The recovered input, float64, of the graph input's shape; None where there is none.
        seconds: Wall-clock time of the whole attack, failed starts included.
        iterations: Outer iterations of an optimisation, over all starts; 0 for a recursion.
        notes: What was tried and found on the way, in words.
        failure: Why there is no `x`: what the method does not apply to, or where it broke off.
    """

    x: Tensor | None
    seconds: float
    iterations: int
    notes: tuple[str, ...]
    failure: str | None = None


class Attack(Protocol):
    """An attacker. What it may know is its argument list; the input's shape is in the graph."""

    @property
    def name(self) -> str:
        """As the literature calls it."""
        ...

    def attack(
        self,
        graph: Graph,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        loss: str,
    ) -> AttackResult:
        """Compute the network's input from one shared gradient.

        Args:
            graph: The architecture, one input and one output.
            weights: Every parameter by name, float64.
            gradients: dl/dp of every trainable parameter, in the type the client sent.
            loss: `cross-entropy`, `bce` or `mse`.
        """
        ...
