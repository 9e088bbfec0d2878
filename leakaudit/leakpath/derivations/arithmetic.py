"""Sums, differences and products: gradients pass, a branch follows from the sum and the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from leakaudit.graph import Node
from leakaudit.leakpath.derivations.general import (
    activations,
    affine_gradients,
    size,
    unknown_factors,
)
from leakaudit.leakpath.facts import Derivation, Fact, Quality, gradient, value
from leakaudit.leakpath.knowledge import Knowledge
from leakaudit.operators import Add, Div, Mul, Scale, Sub


class BranchValue(Derivation):
    kind: ClassVar[str] = "branch-value"

    def sentence(self) -> str:
        """Say what is undone."""
        if len(self.premises) > 1:
            return "one operand follows from the result and the other operand"
        if self.quality is Quality.KEPT:
            return "the other operand is a known constant: undone where it is not 0"
        return "the other operand is a known constant: the operation is undone"


class ProductGradient(Derivation):
    kind: ClassVar[str] = "product-gradient"
    text: ClassVar[str] = "the other factor is known: dl/dx = dl/dy · factor"


def derive(op: Add | Sub | Mul | Div | Scale, node: Node, known: Knowledge) -> Iterator[Derivation]:
    """All derivations of arithmetic whose premises hold."""
    y = node.outputs[0]
    graph = known.graph
    for i in activations(known, node):
        others = [value(node.inputs[j]) for j in activations(known, node) if j != i]
        divisor = isinstance(op, Div) and i == 1
        if divisor:
            continue  # dl/dx of a divisor needs x itself: `backward` covers it
        if isinstance(op, Add | Sub | Scale) or not others:
            yield from affine_gradients(node, known, i)
        elif known.exact(gradient(y), *others):
            yield ProductGradient(
                node.name, known.input_gradient_fact(node, i), (gradient(y), *others)
            )
        if len(others) == 1 and others[0] == value(node.inputs[i]):
            continue  # x + x, x · x
        same_shape = graph.tensors[node.inputs[i]].shape == graph.tensors[y].shape
        quality = known.quality(value(y))
        if quality is None or not same_shape or not _undoable(op):
            continue
        if isinstance(op, Mul) and op.zeros:
            if op.zeros == size(known, y):
                continue
            quality = min(quality, Quality.KEPT)
        if known.exact(*others) and quality > Quality.SCALED:
            premises: tuple[Fact, ...] = (value(y), *others)
            yield BranchValue(node.name, value(node.inputs[i]), premises, quality)


def _undoable(op: Add | Sub | Mul | Div | Scale) -> bool:
    return not (isinstance(op, Scale) and op.factor == 0)


def stop(op: Add | Sub | Mul | Div | Scale, node: Node, known: Knowledge) -> str | None:
    """A product of two unknown tensors stops; the others pass the gradient on."""
    if isinstance(op, Mul | Div) and len(activations(known, node)) > 1:
        return unknown_factors(known, node)
    if isinstance(op, Mul) and op.zeros and known.quality(value(node.outputs[0])) is not None:
        total = size(known, node.outputs[0])
        return f"a stored factor is 0 for {op.zeros} of {total} elements: they have no influence"
    return None
