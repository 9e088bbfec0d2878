"""Activation functions y = act(o): the derivative is written in the output (R-CONV, table 1)."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from types import UnionType
from typing import ClassVar

from leakaudit.graph import Node
from leakaudit.leakpath.facts import Derivation, Quality, gradient, value
from leakaudit.leakpath.knowledge import Knowledge
from leakaudit.operators import (
    Activation,
    Celu,
    Clip,
    Conv,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyRelu,
    Mish,
    Mul,
    Operator,
    Relu,
    Selu,
    Silu,
    Where,
)


class ActivationGradient(Derivation):
    kind: ClassVar[str] = "activation-gradient"
    text: ClassVar[str] = "dl/do = dl/dy · act'(o), the derivative written in the output y"


class ActivationInverse(Derivation):
    kind: ClassVar[str] = "activation-inverse"

    def sentence(self) -> str:
        """Say where the activation can be inverted."""
        if self.quality is Quality.ACTIVE:
            return (
                "o = act⁻¹(y) where the activation is not flat; elsewhere only on which side o lies"
            )
        return "the activation is invertible: o = act⁻¹(y)"


def monotone(op: Activation) -> bool:
    """Whether act' is a function of the output: two slopes must not give one output."""
    match op:
        case LeakyRelu(slope):
            return slope >= 0
        case Elu(alpha) | Celu(alpha):
            return alpha > 0
        case Selu(alpha, gamma):
            return alpha > 0 and gamma > 0
        case HardSigmoid(alpha, _):
            return alpha > 0
        case Silu() | Gelu() | Mish() | HardSwish():
            return False
        case _:
            return True


def invertible(op: Activation) -> bool:
    """Whether the activation can be undone everywhere. The replay checks learned slopes."""
    match op:
        case Relu() | HardSigmoid():
            return False
        case Clip(low, high):
            return low == -inf and high == inf
        case LeakyRelu(slope):
            return slope > 0
        case _:
            return monotone(op)


def derive(op: Activation, node: Node, known: Knowledge) -> Iterator[Derivation]:
    """All derivations of an activation whose premises hold."""
    (o,), (y,) = node.inputs, node.outputs
    quality = known.quality(value(y))
    if known.exact(gradient(y)):
        if isinstance(op, Identity):
            yield ActivationGradient(node.name, known.input_gradient_fact(node), (gradient(y),))
        elif monotone(op) and (
            quality is Quality.EXACT
            # What the only reader does not read has gradient 0, whatever its value.
            or (quality is Quality.READ and _read_alone_by(Conv, known, y))
            or (quality is Quality.KEPT and _read_alone_by(Where | Mul, known, y))
        ):
            yield ActivationGradient(
                node.name, known.input_gradient_fact(node), (gradient(y), value(y))
            )
    if quality is not None and quality > Quality.SCALED:
        if invertible(op):
            yield ActivationInverse(node.name, value(o), (value(y),), quality=quality)
        elif monotone(op):
            yield ActivationInverse(
                node.name, value(o), (value(y),), quality=min(quality, Quality.ACTIVE)
            )


def _read_alone_by(kind: type[Operator] | UnionType, known: Knowledge, y: str) -> bool:
    uses = known.graph.uses[y]
    return len(uses) == 1 and isinstance(uses[0].node.op, kind) and y not in known.graph.outputs


def stop(op: Activation, node: Node, known: Knowledge) -> str | None:
    """Why nothing passes this activation."""
    if not monotone(op):
        return "the activation is not monotone: its output does not tell its derivative"
    if not known.exact(gradient(node.outputs[0])):
        return "the gradient of its output is not known"
    return "the value of its output is not known"
