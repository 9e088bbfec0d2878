"""Arithmetic between tensors, parameters and constants, with numpy's broadcasting.

Gradients of sums pass; an operand follows from the result and the other operand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from leakaudit.facts.fact import Derivation, Fact, Quality, gradient, value
from leakaudit.facts.general import activations, affine_gradients, size, unknown_factors
from leakaudit.facts.gradient_rank import scaled, summed_to
from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Graph, Node
from leakaudit.operators.base import Bound, ByElement, Opaque, Ranks

__all__ = ["Add", "Div", "Mul", "Pow", "Scale", "Sub"]


class BranchValue(Derivation):
    kind: ClassVar[str] = "branch-value"

    def sentence(self) -> str:
        if len(self.premises) > 1:
            return "one operand follows from the result and the other operand"
        if self.quality is Quality.KEPT:
            return "the other operand is a known constant: undone where it is not 0"
        return "the other operand is a known constant: the operation is undone"


class ProductGradient(Derivation):
    kind: ClassVar[str] = "product-gradient"
    text: ClassVar[str] = "the other factor is known: dl/dx = dl/dy · factor"


class AddedParameterGradient(Derivation):
    kind: ClassVar[str] = "added-parameter-gradient"
    text: ClassVar[str] = (
        "the parameter added here has the tensor's own shape: its gradient is the tensor's gradient"
    )


class OperandGradient(Derivation):
    kind: ClassVar[str] = "operand-gradient"
    text: ClassVar[str] = "a sum has the gradient of each of its operands"


@dataclass(frozen=True, slots=True)
class Arithmetic(ByElement):
    """Base of what can be undone for one operand."""

    abstract: ClassVar[bool] = True
    any_size: ClassVar[bool] = True

    def derive(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        y = node.outputs[0]
        indices = activations(known, node)
        for i in indices:
            if not self.undoes(i):
                continue
            x, others = node.inputs[i], [value(node.inputs[j]) for j in indices if j != i]
            yield from self.gradient_of_operand(node, known, i, others)
            if len(others) == 1 and others[0] == value(x):
                continue  # x + x, x · x
            quality = self.quality_of_operand(node, known)
            if quality is None or quality is Quality.SCALED or not known.exact(*others):
                continue
            if known.graph.tensors[x].shape == known.graph.tensors[y].shape:
                premises: tuple[Fact, ...] = (value(y), *others)
                yield BranchValue(node.name, value(x), premises, quality)

    def undoes(self, index: int) -> bool:
        """Whether something follows for the operand at this place."""
        return True

    def gradient_of_operand(
        self, node: Node, known: Knowledge, index: int, others: list[Fact]
    ) -> Iterator[Derivation]:
        """Yield its gradient, `others` being the values of the other activations."""
        raise NotImplementedError

    def quality_of_operand(self, node: Node, known: Knowledge) -> Quality | None:
        """How well an operand of the output's shape follows, the other one being known."""
        return known.quality(value(node.outputs[0]))

    def stop(self, node: Node, known: Knowledge) -> str | None:
        return None


@dataclass(frozen=True, slots=True)
class Additive(Arithmetic):
    """Base of sums: the gradient of an operand needs no value."""

    abstract: ClassVar[bool] = True

    def gradient_of_operand(
        self, node: Node, known: Knowledge, index: int, others: list[Fact]
    ) -> Iterator[Derivation]:
        return affine_gradients(node, known, index)

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return summed_to(outputs[0], graph.shape(node.inputs[index]))


@dataclass(frozen=True, slots=True)
class Sum(Additive):
    """Base of sums of two operands, tensors or parameters."""

    abstract: ClassVar[bool] = True

    def parameter_gradients(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        """An operand of the output's size has the gradient of the output, up to its sign."""
        (y,) = node.outputs
        whole = [size(known, name) == size(known, y) for name in node.inputs]
        for name, fits in zip(node.inputs, whole, strict=True):
            if fits and known.observed(name):
                yield AddedParameterGradient(node.name, gradient(y))
        for i in activations(known, node):
            fact = known.input_gradient_fact(node, i)
            if whole[i] and known.exact(fact):
                yield OperandGradient(node.name, gradient(y), (fact,))


@dataclass(frozen=True, slots=True)
class Product(Arithmetic):
    """Base of products: the gradient of an operand needs the other one."""

    abstract: ClassVar[bool] = True

    def gradient_of_operand(
        self, node: Node, known: Knowledge, index: int, others: list[Fact]
    ) -> Iterator[Derivation]:
        if not others:
            yield from affine_gradients(node, known, index)
        elif known.exact(premise := gradient(node.outputs[0]), *others):
            fact = known.input_gradient_fact(node, index)
            yield ProductGradient(node.name, fact, (premise, *others))

    def stop(self, node: Node, known: Knowledge) -> str | None:
        return unknown_factors(known, node) if len(activations(known, node)) > 1 else None

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        """Multiplied by the other factor, which varies along some axes of the output."""
        y, other = outputs[0], graph.shape(node.inputs[1 - index])
        lead = len(y.shape) - len(other)
        varying = [lead + a for a, length in enumerate(other) if length > 1]
        return summed_to(scaled(y, varying), graph.shape(node.inputs[index]))


@dataclass(frozen=True, slots=True)
class Add(Sum):
    """x + y; the two inputs may be tensors or parameters."""


@dataclass(frozen=True, slots=True)
class Sub(Sum):
    """x - y."""


@dataclass(frozen=True, slots=True)
class Mul(Product):
    """x · y, elementwise.

    `zeros` counts the elements of the output that a stored factor sets to 0, where its numbers were
    read: a mask. What it multiplies there has no influence on anything behind.
    """

    unread: ClassVar[Quality] = Quality.KEPT

    zeros: int = 0

    def quality_of_operand(self, node: Node, known: Knowledge) -> Quality | None:
        quality = known.quality(value(node.outputs[0]))
        if quality is None or not self.zeros:
            return quality
        return min(quality, Quality.KEPT) if self.zeros < size(known, node.outputs[0]) else None

    def stop(self, node: Node, known: Knowledge) -> str | None:
        """A product of two unknown tensors stops, and so do factors that are 0."""
        reason = Product.stop(self, node, known)
        if reason or not self.zeros or known.quality(value(node.outputs[0])) is None:
            return reason
        total = size(known, node.outputs[0])
        return f"a stored factor is 0 for {self.zeros} of {total} elements: they have no influence"


@dataclass(frozen=True, slots=True)
class Div(Product):
    """x / y, elementwise, floating types only."""

    def undoes(self, index: int) -> bool:
        """A divisor's gradient needs the divisor itself, which only differentiation covers."""
        return index == 0

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        if index == 0:
            return Product.gradient_bound(self, graph, node, index, outputs)
        # The quotient itself is a factor of the derivative.
        return ByElement.gradient_bound(self, graph, node, index, outputs)


@dataclass(frozen=True, slots=True)
class Pow(ByElement, Opaque):
    """x to the power of y, elementwise."""

    reason: ClassVar[str] = "its derivative needs its input, which is not known"


@dataclass(frozen=True, slots=True)
class Scale(Additive):
    """factor · x + offset with plain numbers: scalar arithmetic, negation."""

    factor: float = 1.0
    offset: float = 0.0

    def quality_of_operand(self, node: Node, known: Knowledge) -> Quality | None:
        return known.quality(value(node.outputs[0])) if self.factor else None
