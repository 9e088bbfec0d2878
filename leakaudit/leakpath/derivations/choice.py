"""Where by a stored condition: it keeps elements of an operand and hides the others."""

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
from leakaudit.leakpath.facts import Derivation, Quality, gradient, value
from leakaudit.leakpath.knowledge import Knowledge
from leakaudit.operators import Where


class KeptValue(Derivation):
    kind: ClassVar[str] = "kept-value"
    text: ClassVar[str] = "the elements that the stored condition keeps stand in the output"


def derive(op: Where, node: Node, known: Knowledge) -> Iterator[Derivation]:
    """The gradient of each operand, and its value where the output holds it."""
    y = node.outputs[0]
    quality = known.quality(value(y))
    for i in activations(known, node):
        yield from affine_gradients(node, known, i)
        kept = _kept(op, node, known, i)
        if kept == 0 or quality is None or quality is Quality.SCALED:
            continue  # beside elements of the other operand the scale is no longer one
        # A copy spread over the output is not put together again: its own shape is asked for.
        if shape(known, node.inputs[i]) == shape(known, y):
            best = quality if kept == size(known, y) else min(quality, Quality.KEPT)
            yield KeptValue(node.name, value(node.inputs[i]), (value(y),), best)


def _kept(op: Where, node: Node, known: Knowledge, index: int) -> int:
    """How many elements of the output come from input `index`."""
    return op.kept if index == 1 else size(known, node.outputs[0]) - op.kept


def stop(op: Where, node: Node, known: Knowledge) -> str | None:
    """It hides elements: of a known output the hidden ones do not follow."""
    if not known.exact(gradient(node.outputs[0])):
        return "the gradient of its output is not known"
    hidden = [
        size(known, node.outputs[0]) - _kept(op, node, known, i) for i in activations(known, node)
    ]
    if known.quality(value(node.outputs[0])) is None or not any(hidden):
        return None
    total = size(known, node.outputs[0])
    return f"a stored condition hides {max(hidden)} of {total} elements: they have no influence"
