"""Dense layers z = W x + b, and products of matrices.

dl/dW = G xᵀ and dl/db = G with G = dl/dz, so one division gives the input (R-CONV, equation 5 and
following; first noted for a single bias in Phong et al. 2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from leakaudit.counting.geometry import Axis, ConvolutionGeometry
from leakaudit.facts.fact import Derivation, Quality, gradient, value
from leakaudit.facts.general import activations, unknown_factors
from leakaudit.facts.gradient_rank import ALL, mapped, mixed, renamed, unlimited
from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Followed, Graph, Node, Operator, Shape
from leakaudit.operators.base import (
    NOT_SOLVED,
    Affine,
    Bound,
    Ranks,
    Roles,
    Shapes,
    broadcast,
    require,
)

__all__ = ["Einsum", "Linear", "MatMul"]


class ValueFromBias(Derivation):
    kind: ClassVar[str] = "dense-value-from-bias"
    text: ClassVar[str] = "x = dW[m] / db[m] for every m with db[m] != 0 (least squares over all m)"


class GradientFromBias(Derivation):
    kind: ClassVar[str] = "dense-gradient-from-bias"
    text: ClassVar[str] = "the bias gradient is the gradient of the layer's output: dl/dz = db"


class InputGradient(Derivation):
    kind: ClassVar[str] = "dense-input-gradient"
    text: ClassVar[str] = "dl/dx = Wᵀ · dl/dz"


class ValueFromGradient(Derivation):
    kind: ClassVar[str] = "dense-value-from-gradient"
    text: ClassVar[str] = "dl/dW = Gᵀ x is solved for x, G = dl/dz being known"


class ValueFromOutput(Derivation):
    kind: ClassVar[str] = "dense-value-from-output"
    text: ClassVar[str] = (
        "W x = z - b is solved for x: there are at least as many outputs as inputs"
    )

    def waits(self, node: Node, known: Knowledge) -> bool:
        """Always: dl/dW gives the input once dl/dz is known."""
        return True


class ValueFromLoss(Derivation):
    kind: ClassVar[str] = "dense-value-from-loss"
    text: ClassVar[str] = (
        "dW = g xᵀ has rank one: x up to a scale, and the scale is the root of the loss equation "
        "g = dl/dz(W x)"
    )


class GradientFromLoss(Derivation):
    kind: ClassVar[str] = "dense-gradient-from-loss"
    text: ClassVar[str] = "with the scale of x known, dl/dz follows from dW = g xᵀ"


class ValueUpToScale(Derivation):
    kind: ClassVar[str] = "dense-value-up-to-scale"
    text: ClassVar[str] = "dW = g xᵀ has rank one: x is known up to one factor"


@dataclass(frozen=True, slots=True)
class Linear(Operator):
    """Dense layer y = alpha · x Wᵀ + beta · b on the last axis; leading axes: batch and tokens.

    Node parameters: `weight`, stored (out, in), or (in, out) where `transposed` is set, and
    optionally `bias` (out,).
    """

    is_layer: ClassVar[bool] = True
    channel_axis: ClassVar[int] = -1

    in_features: int
    out_features: int
    transposed: bool = False
    alpha: float = 1.0
    beta: float = 1.0

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        return [(*inputs[0][:-1], self.out_features)]

    def follow(
        self, old: Shapes, new: Shapes, parameters: Roles, stated: Shapes, width: int | None = None
    ) -> Followed:
        (*leading, features), rows = new[0], width or self.out_features
        op = replace(self, in_features=features, out_features=rows)
        weight = (features, rows) if self.transposed else (rows, features)
        return op, {"weight": weight, "bias": (rows,)}, (*leading, rows)

    def geometry(self, source: Shape, weight: Shape) -> ConvolutionGeometry:
        axes = tuple(Axis(size) for size in source[:-1]) or (Axis(1),)
        return ConvolutionGeometry(self.in_features, self.out_features, axes)

    def hyperparameters(self, graph: Graph, node: Node) -> dict[str, object]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": node.parameter("bias") is not None,
        }

    def derive(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        (x,), (z,) = node.inputs, node.outputs
        weight_observed = known.observed(node.parameter("weight"))
        bias_observed = known.observed(node.parameter("bias")) and self.beta != 0
        rows = _positions(known, node)
        if rows == 1 and bias_observed:
            yield GradientFromBias(node.name, gradient(z))
            if weight_observed:
                yield ValueFromBias(node.name, value(x))
        if rows == 1 and weight_observed and not bias_observed:
            if _solves_loss(known, node):
                yield ValueFromLoss(node.name, value(x))
                yield GradientFromLoss(node.name, gradient(z))
            else:
                yield ValueUpToScale(node.name, value(x), quality=Quality.SCALED)
        if weight_observed and known.exact(gradient(z)) and _rank(known, node) >= rows:
            counts = {
                "unknowns": rows * self.in_features,
                "gradient_constraints": self.in_features * self.out_features,
                "rank_bound": rows * self.in_features,
            }
            yield ValueFromGradient(node.name, value(x), (gradient(z),), counts=counts)
        if known.exact(value(z)) and self.out_features >= self.in_features and self.alpha != 0:
            counts = {
                "unknowns": rows * self.in_features,
                "weight_constraints": rows * self.out_features,
                "rank_bound": rows * self.in_features,
            }
            yield ValueFromOutput(node.name, value(x), (value(z),), counts=counts)
        if known.exact(gradient(z)):
            yield InputGradient(node.name, known.input_gradient_fact(node), (gradient(z),))

    def stop(self, node: Node, known: Knowledge) -> str | None:
        rows = _positions(known, node)
        if not known.observed(node.parameter("weight")):
            shared = known.graph.parameter_uses.get(node.parameter("weight") or "", 0) > 1
            return "its weight is shared" if shared else "its weight is frozen: no gradient is sent"
        if rows > 1 and known.exact(gradient(node.outputs[0])):
            return (
                f"dl/dW = Gᵀ x has at most rank {_rank(known, node)} for its {rows} examples or "
                "tokens: the gradient of its output does not separate them"
            )
        if rows > 1:
            return (
                f"its gradients are summed over {rows} examples or tokens: one bias gradient does "
                "not separate them"
            )
        if known.loss == "mse":
            return (
                "it has no bias, and the target of a squared error is not known: the scale is open"
            )
        return "it has no observed bias: its input is known only up to one unknown scale"

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        shape = graph.shape(node.inputs[index])
        return mapped(outputs[0], len(shape) - 1, shape[-1])


def _positions(known: Knowledge, node: Node) -> int:
    """Rows of x: examples times tokens that share the weights."""
    return prod(known.graph.tensors[node.inputs[0]].shape[:-1])


def _rank(known: Knowledge, node: Node) -> int:
    """Bound on the rank of dl/dz as a matrix, rows x outputs."""
    outputs = known.graph.tensors[node.outputs[0]].shape[-1]
    limit = known.rank(node)
    return min(_positions(known, node), outputs) if limit is None else limit


def _solves_loss(known: Knowledge, node: Node) -> bool:
    """Whether the loss gives the scale: the layer is the head, and the targets are labels."""
    return (
        known.loss in ("cross-entropy", "bce")
        and known.graph.outputs == node.outputs
        and not known.graph.uses[node.outputs[0]]
    )


@dataclass(frozen=True, slots=True)
class MatMul(Affine):
    """numpy.matmul of two inputs, at least one of them an activation."""

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        left, right = inputs
        require(bool(left) and bool(right))
        inner = right[-2] if len(right) > 1 else right[0]
        require(left[-1] == inner)
        batch = broadcast(left[:-2], right[:-2])
        return [(*batch, *left[:-1][-1:], *(right[-1:] if len(right) > 1 else ()))]

    def stop(self, node: Node, known: Knowledge) -> str | None:
        return _product_stop(node, known)

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        """A product with a matrix maps one axis; with a stack of them, it does within it."""
        y, shape = outputs[0], graph.shape(node.inputs[index])
        axis = len(shape) - 1 - index
        if len(shape) != len(y.shape) or len(shape) < 2:
            return None
        if len(graph.shape(node.inputs[1 - index])) == 2:
            return mapped(y, axis, shape[axis])
        if y.shape[:-2] != shape[:-2]:
            return None
        return mixed(mapped(y, axis, shape[axis]), [axis])


@dataclass(frozen=True, slots=True)
class Einsum(Affine):
    """numpy.einsum of one or two inputs; no ellipsis."""

    equation: str

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        left, _, right = self.equation.partition("->")
        sizes: dict[str, int] = {}
        for term, shape in zip(left.split(","), inputs, strict=True):
            for letter, size in zip(term, shape, strict=True):
                # numpy and torch differ on an axis of size 1 under the letter of a longer one.
                require(letter.isascii() and letter.isalpha())
                require(sizes.setdefault(letter, size) == size)
        require(set(right) <= set(sizes) and len(set(right)) == len(right))
        return [tuple(sizes[letter] for letter in right)]

    def stop(self, node: Node, known: Knowledge) -> str | None:
        return _product_stop(node, known)

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        """dl/dx is the contraction of dl/dy with the other operand, if any."""
        y, shape = outputs[0], graph.shape(node.inputs[index])
        terms, _, output = self.equation.replace(" ", "").partition("->")
        operands = terms.split(",")
        own = operands[index]
        other = set("".join(operands[:index] + operands[index + 1 :]))
        if any(len(set(letters)) < len(letters) for letters in (own, output)) or not output:
            return None
        if not other:
            return renamed(y, shape, lambda a: own.index(output[a]) if output[a] in own else None)
        supports = [ALL] * len(shape)
        for a, letter in enumerate(own):
            if letter in output and y.shape[output.index(letter)] == shape[a]:
                supports[a] = y.supports[output.index(letter)]
        return unlimited(shape, tuple(supports))


def _product_stop(node: Node, known: Knowledge) -> str:
    """Why the value of an operand of a product of matrices does not follow."""
    if len(activations(known, node)) > 1:
        return unknown_factors(known, node)
    return NOT_SOLVED
