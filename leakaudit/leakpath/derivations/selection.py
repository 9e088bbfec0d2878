"""Operators that copy elements: Concat, Split, Slice, Pad, Expand, Gather."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from leakaudit.graph import Node
from leakaudit.leakpath.derivations.general import (
    activations,
    affine_gradients,
    shape,
    size,
)
from leakaudit.leakpath.facts import Derivation, gradient, value
from leakaudit.leakpath.knowledge import Knowledge
from leakaudit.operators import Concat, Expand, Gather, Operator, Pad, Slice, Split


class PartValue(Derivation):
    kind: ClassVar[str] = "part-value"
    text: ClassVar[str] = "the input stands in the output and is cut out of it"


class WholeValue(Derivation):
    kind: ClassVar[str] = "whole-value"
    text: ClassVar[str] = "the outputs hold every element of the input and are put together"


def derive(op: Operator, node: Node, known: Knowledge) -> Iterator[Derivation]:
    """All derivations of a selection whose premises hold."""
    for i in activations(known, node):
        yield from affine_gradients(node, known, i)
    outputs = tuple(value(output) for output in node.outputs)
    if not known.exact(*outputs):
        return
    match op:
        case Concat() | Pad() | Expand():
            for i in activations(known, node):
                yield PartValue(node.name, value(node.inputs[i]), outputs)
        case Split():
            yield WholeValue(node.name, value(node.inputs[0]), outputs)
        case Slice() | Gather() if complete(op, node, known):
            yield WholeValue(node.name, value(node.inputs[0]), outputs)
        case _:
            return


def complete(op: Operator, node: Node, known: Knowledge) -> bool:
    """Whether the output holds every element of the input."""
    if isinstance(op, Gather):
        axis = shape(known, node.inputs[0])[op.axis]
        return set(op.indices) == set(range(axis))
    return size(known, node.inputs[0]) == size(known, node.outputs[0])


def stop(op: Operator, node: Node, known: Knowledge) -> str | None:
    """Slices and gathers drop elements; what they keep is known."""
    if isinstance(op, Slice | Gather) and not complete(op, node, known):
        if known.exact(gradient(node.outputs[0])):
            return None
        return "it drops elements, and the gradient of its output is not known"
    return None
