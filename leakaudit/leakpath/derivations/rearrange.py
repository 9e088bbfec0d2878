"""Operators that only move elements: both facts pass both ways."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from leakaudit.graph import Node
from leakaudit.leakpath.facts import Derivation, gradient, value
from leakaudit.leakpath.knowledge import Knowledge
from leakaudit.operators import Reshape, Transpose


class RearrangeValue(Derivation):
    kind: ClassVar[str] = "rearrange-value"
    text: ClassVar[str] = "the elements are only moved: moved back, they are the input"


class RearrangeGradient(Derivation):
    kind: ClassVar[str] = "rearrange-gradient"
    text: ClassVar[str] = "the gradient's elements are moved back the same way"


def derive(_op: Reshape | Transpose, node: Node, known: Knowledge) -> Iterator[Derivation]:
    """All derivations of a rearrangement whose premises hold."""
    x, y = node.inputs[0], node.outputs[0]
    quality = known.quality(value(y))
    if quality is not None:
        yield RearrangeValue(node.name, value(x), (value(y),), quality=quality)
    if known.exact(gradient(y)):
        yield RearrangeGradient(node.name, known.input_gradient_fact(node), (gradient(y),))


def stop(_op: Reshape | Transpose, _node: Node, _known: Knowledge) -> str | None:
    """A rearrangement stops nothing of its own."""
    return None
