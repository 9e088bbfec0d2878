"""Convolutions: gradient constraints dl/dw = G·P and weight constraints o - b = P·wᵀ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import ClassVar

from leakaudit.counting.bound import LayerBound, layer_bound
from leakaudit.counting.geometry import geometry_of
from leakaudit.graph import Node
from leakaudit.leakpath.facts import Derivation, Quality, gradient, value
from leakaudit.leakpath.knowledge import Knowledge
from leakaudit.operators import Conv


class ConvolutionValue(Derivation):
    """The layer's input as the solution of its linear equations.

    The premises say which: gradient(out) gives gradient constraints, value(out) weight constraints.
    """

    kind: ClassVar[str] = "convolution-value"

    def sentence(self) -> str:
        """Name the equations that are solved."""
        premises = {premise.kind for premise in self.premises}
        parts = []
        if "gradient" in premises:
            parts.append(f"{self.counts['gradient_constraints']} gradient constraints dl/dw = G·P")
        if "value" in premises:
            parts.append(f"{self.counts['weight_constraints']} weight constraints o - b = P·w")
        return f"{' and '.join(parts)} are solved for {self.counts['unknowns']} unknowns"


class BiasGradient(Derivation):
    kind: ClassVar[str] = "convolution-bias-gradient"
    text: ClassVar[str] = "the layer has one output position: dl/do = db"


class ConvolutionInputGradient(Derivation):
    kind: ClassVar[str] = "convolution-input-gradient"
    text: ClassVar[str] = "dl/dx is the transposed convolution of dl/do"


def available(known: Knowledge, node: Node) -> LayerBound:
    """The bound for the equations that can be set up with what is known of the output."""
    (o,) = node.outputs
    gradient_known = known.exact(gradient(o)) and known.observed(node.parameter("weight"))
    layer = replace(
        geometry_of(known.graph, node),
        observed=gradient_known,
        outputs_known=(known.quality(value(o)) or 0) >= Quality.ACTIVE,
        gradient_rank=known.rank(node),
    )
    return layer_bound(layer)


def complete(node: Node, known: Knowledge) -> bool:
    """Whether the equations known of a convolution are all that can ever be known."""
    (o,) = node.outputs
    gradient_settled = known.exact(gradient(o)) or not known.observed(node.parameter("weight"))
    return gradient_settled and known.exact(value(o))


def derive(_op: Conv, node: Node, known: Knowledge) -> Iterator[Derivation]:
    """All derivations of a convolution whose premises hold."""
    (x,), (o,) = node.inputs, node.outputs
    bias = node.parameter("bias")
    if known.observed(bias) and prod(known.graph.tensors[o].shape) == prod(
        known.graph.parameters[bias or ""].shape
    ):
        yield BiasGradient(node.name, gradient(o))
    if known.exact(gradient(o)):
        yield ConvolutionInputGradient(node.name, known.input_gradient_fact(node), (gradient(o),))
    if known.exact(value(x)) or not known.reached(node):
        return
    bound = available(known, node)
    if bound.read == 0 or bound.rank < bound.read:
        return
    # Gradient constraints alone need no activation to be inverted: prefer them where they suffice.
    # Where an output is not read, dl/do is 0, and they may have less rank than counted.
    alone = (
        bound.gradient_constraints > 0
        and bound.gradient_rank == bound.read
        and known.quality(value(o)) not in (Quality.READ, Quality.KEPT)
    )
    premises = []
    if bound.gradient_constraints:
        premises.append(gradient(o))
    if bound.weight_constraints and not alone:
        premises.append(value(o))
    yield ConvolutionValue(
        node.name,
        value(x),
        tuple(premises),
        # Outputs that the next layer does not read have no influence: then neither have some
        # pixels here, and counting cannot tell which.
        quality=(
            Quality.READ
            if bound.unread or known.quality(value(o)) is Quality.READ
            else Quality.EXACT
        ),
        counts={
            "unknowns": bound.unknowns,
            "unread": bound.unread,
            "gradient_constraints": bound.gradient_constraints,
            "weight_constraints": 0 if alone else bound.weight_constraints,
            "rank_bound": bound.rank,
        },
    )


def stop(_op: Conv, node: Node, known: Knowledge) -> str | None:
    """Why the value of the layer's input does not follow."""
    bound = available(known, node)
    (o,) = node.outputs
    have = f"rank bound {bound.rank} of {bound.unknowns} unknowns"
    if bound.gradient_constraints and bound.weight_constraints:
        total = bound.gradient_constraints + bound.weight_constraints
        why = (
            f"{bound.gradient_constraints} gradient and {bound.weight_constraints} weight "
            f"constraints have at most rank {bound.rank} ({total - bound.rank} redundant)"
        )
    elif bound.gradient_constraints:
        why = (
            f"its output is not known, and its {bound.gradient_constraints} gradient constraints "
            f"alone have at most rank {bound.gradient_rank}"
        )
    elif known.exact(gradient(o)):
        shared = known.graph.parameter_uses.get(node.parameter("weight") or "", 0) > 1
        why = "its weight is shared with another layer" if shared else "its weight is frozen"
    else:
        why = "the gradient of its output is not known"
    unread = f", {bound.unread} pixels are read by no tap" if bound.unread else ""
    return f"underdetermined: {why}{unread}; {have}"
