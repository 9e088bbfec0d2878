"""Normalisation: affine with known constants in evaluation mode, otherwise the end of a path."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import ClassVar

from leakaudit.graph import Node
from leakaudit.leakpath.derivations.general import affine_gradients
from leakaudit.leakpath.facts import Derivation, Quality, gradient, value
from leakaudit.leakpath.knowledge import Knowledge
from leakaudit.operators import BatchNorm, Operator


class BatchNormInverse(Derivation):
    kind: ClassVar[str] = "batch-norm-inverse"
    text: ClassVar[str] = "in evaluation mode it is affine with known constants: undone"


class BiasGradient(Derivation):
    kind: ClassVar[str] = "bias-gradient"
    text: ClassVar[str] = "its bias is read once per output value: dl/dy = db"


def derive(op: Operator, node: Node, known: Knowledge) -> Iterator[Derivation]:
    """All derivations of a normalisation whose premises hold."""
    x, y = node.inputs[0], node.outputs[0]
    bias = node.parameter("bias")
    if known.observed(bias) and prod(known.graph.parameters[bias or ""].shape) == prod(
        known.graph.tensors[y].shape
    ):
        yield BiasGradient(node.name, gradient(y))
    if isinstance(op, BatchNorm) and not op.training:
        yield from affine_gradients(node, known, 0)
        quality = known.quality(value(y))
        if quality is not None and quality > Quality.SCALED:
            yield BatchNormInverse(node.name, value(x), (value(y),), quality)


def stop(op: Operator, node: Node, known: Knowledge) -> str | None:
    """Why nothing passes."""
    if isinstance(op, BatchNorm):
        if op.training:
            return "batch normalisation in training mode divides by statistics that are not known"
        return None
    return (
        "it divides by a statistic of its input, which is not known: neither value nor gradient "
        "passes"
    )
