"""Dense layers: z = W x + b.

dl/dW = G xᵀ and dl/db = G with G = dl/dz, so one division gives the input (R-CONV, equation 5 and
following; first noted for a single bias in Phong et al. 2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import ClassVar

from leakaudit.graph import Node
from leakaudit.leakpath.facts import Derivation, Quality, gradient, value
from leakaudit.leakpath.knowledge import Knowledge
from leakaudit.operators import Linear


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


def positions(known: Knowledge, node: Node) -> int:
    """Rows of x: examples times tokens that share the weights."""
    return prod(known.graph.tensors[node.inputs[0]].shape[:-1])


def rank(known: Knowledge, node: Node) -> int:
    """Bound on the rank of dl/dz as a matrix, rows x outputs."""
    outputs = known.graph.tensors[node.outputs[0]].shape[-1]
    limit = known.rank(node)
    return min(positions(known, node), outputs) if limit is None else limit


def solves_loss(known: Knowledge, node: Node) -> bool:
    """Whether the loss gives the scale: the layer is the head, and the targets are labels."""
    return (
        known.loss in ("cross-entropy", "bce")
        and known.graph.outputs == node.outputs
        and not known.graph.uses[node.outputs[0]]
    )


def derive(op: Linear, node: Node, known: Knowledge) -> Iterator[Derivation]:
    """All derivations of a dense layer whose premises hold."""
    (x,), (z,) = node.inputs, node.outputs
    weight_observed = known.observed(node.parameter("weight"))
    bias_observed = known.observed(node.parameter("bias")) and op.beta != 0
    rows = positions(known, node)
    if rows == 1 and bias_observed:
        yield GradientFromBias(node.name, gradient(z))
        if weight_observed:
            yield ValueFromBias(node.name, value(x))
    if rows == 1 and weight_observed and not bias_observed:
        if solves_loss(known, node):
            yield ValueFromLoss(node.name, value(x))
            yield GradientFromLoss(node.name, gradient(z))
        else:
            yield ValueUpToScale(node.name, value(x), quality=Quality.SCALED)
    if weight_observed and known.exact(gradient(z)) and rank(known, node) >= rows:
        counts = {
            "unknowns": rows * op.in_features,
            "gradient_constraints": op.in_features * op.out_features,
            "rank_bound": rows * op.in_features,
        }
        yield ValueFromGradient(node.name, value(x), (gradient(z),), counts=counts)
    if known.exact(value(z)) and op.out_features >= op.in_features and op.alpha != 0:
        counts = {
            "unknowns": rows * op.in_features,
            "weight_constraints": rows * op.out_features,
            "rank_bound": rows * op.in_features,
        }
        yield ValueFromOutput(node.name, value(x), (value(z),), counts=counts)
    if known.exact(gradient(z)):
        yield InputGradient(node.name, known.input_gradient_fact(node), (gradient(z),))


def stop(op: Linear, node: Node, known: Knowledge) -> str | None:
    """Why the value of the layer's input does not follow."""
    rows = positions(known, node)
    if not known.observed(node.parameter("weight")):
        shared = known.graph.parameter_uses.get(node.parameter("weight") or "", 0) > 1
        return "its weight is shared" if shared else "its weight is frozen: no gradient is sent"
    if rows > 1 and known.exact(gradient(node.outputs[0])):
        return (
            f"dl/dW = Gᵀ x has at most rank {rank(known, node)} for its {rows} examples or tokens: "
            "the gradient of its output does not separate them"
        )
    if rows > 1:
        return (
            f"its gradients are summed over {rows} examples or tokens: one bias gradient does not "
            "separate them"
        )
    if known.loss == "mse":
        return "it has no bias, and the target of a squared error is not known: the scale is open"
    return "it has no observed bias: its input is known only up to one unknown scale"
