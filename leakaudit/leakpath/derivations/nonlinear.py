"""Operators whose gradient needs the input itself: they pass nothing on unless it is known."""

from __future__ import annotations

from collections.abc import Iterator

from leakaudit.graph import Node
from leakaudit.leakpath.facts import Derivation
from leakaudit.leakpath.knowledge import Knowledge
from leakaudit.operators import (
    Attention,
    Elementwise,
    Embedding,
    LpPool,
    MaxPool,
    Operator,
    Pow,
    Softmax,
)

REASONS: dict[type[Operator], str] = {
    MaxPool: "max pooling hides which position held the maximum, and every value below it",
    LpPool: "pooling merges the values of a window",
    Softmax: "softmax forgets what all its inputs have in common",
    Attention: "attention mixes products of unknown activations",
    Pow: "its derivative needs its input, which is not known",
    Elementwise: "its derivative needs its input, which is not known",
    Embedding: (
        "an embedding reads integers: the gradient of its table shows which rows were read, and "
        "there are no real values below it"
    ),
}


def derive(op: Operator, node: Node, known: Knowledge) -> Iterator[Derivation]:
    """Nothing of their own: `forward` and `backward` cover the case of a known input."""
    return iter(())


def stop(op: Operator, node: Node, known: Knowledge) -> str | None:
    """Why nothing passes."""
    return REASONS[type(op)]
