"""What an attacker knows: facts about tensors, and the derivations that give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, ClassVar

from leakaudit.graph import Node

if TYPE_CHECKING:
    from leakaudit.facts.knowledge import Knowledge


class Kind(StrEnum):
    """Which number of a tensor a fact is about."""

    VALUE = "value"
    GRADIENT = "gradient"  # dl/dt, summed over all uses of t
    CONTRIBUTION = "contribution"  # the part of dl/dt that flows back through one use of t


class Quality(IntEnum):
    """How well a fact is known; a larger one replaces a smaller one."""

    SCALED = 1  # up to one unknown factor
    ACTIVE = 2  # where the activation is on; elsewhere only o <= 0
    SEEN = 3  # where the loss depends on it; elsewhere dl/dt is 0
    KEPT = 4  # where a stored condition keeps it; elsewhere nothing reads it
    READ = 5  # on the pixels that the next layer reads
    EXACT = 6


QUALITY_TEXT = {
    Quality.SCALED: "up to one unknown scale",
    Quality.ACTIVE: "where the activation is on",
    Quality.SEEN: "where its gradient is not 0",
    Quality.KEPT: "where a stored condition keeps it",
    Quality.READ: "on the pixels that are read",
    Quality.EXACT: "exactly",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """A number of a tensor. `node` and `index` name the use, for contributions only."""

    kind: Kind
    tensor: str
    node: str = ""
    index: int = 0

    def __str__(self) -> str:
        if self.kind is Kind.CONTRIBUTION:
            return f"gradient({self.tensor} through {self.node})"
        return f"{self.kind}({self.tensor})"


def value(tensor: str) -> Fact:
    """The fact that the value of a tensor is known."""
    return Fact(Kind.VALUE, tensor)


def gradient(tensor: str) -> Fact:
    """The fact that dl/dt is known."""
    return Fact(Kind.GRADIENT, tensor)


@dataclass(frozen=True, slots=True)
class Derivation:
    """Premises -> conclusion, by the equation of one node.

    Attributes:
        node: The node whose equation is used ("" for the sum over uses).
        conclusion: What is then known, as well as `quality` says.
        premises: What must be known for it.
        counts: Equations and unknowns of the system it solves, where it solves one.
    """

    node: str
    conclusion: Fact
    premises: tuple[Fact, ...] = ()
    quality: Quality = Quality.EXACT
    counts: Mapping[str, int] = field(default_factory=dict)

    kind: ClassVar[str] = ""
    text: ClassVar[str] = ""

    def sentence(self) -> str:
        """The derivation in words, for the report."""
        return self.text

    def waits(self, _node: Node, _known: Knowledge) -> bool:
        """Whether it solves a system to which facts still to come could add equations.

        Such a derivation is taken when nothing else follows any more. What is known by
        then follows without its solution, so that no equation is used that was derived from the
        unknowns themselves.
        """
        return False
