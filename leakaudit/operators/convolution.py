"""Convolutions: gradient constraints dl/dw = G·P and weight constraints o - b = P·wᵀ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import ClassVar

from leakaudit.counting.bound import LayerBound, layer_bound
from leakaudit.counting.geometry import Axis, ConvolutionGeometry, geometry_of
from leakaudit.facts.fact import Derivation, Quality, gradient, value
from leakaudit.facts.general import reads_bias_once
from leakaudit.facts.gradient_rank import ALL, GradientRank, full, short, tidy
from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Followed, Graph, Node, Shape
from leakaudit.operators.base import NOT_SOLVED, Affine, Bound, Ranks, Roles, Shapes, Window

__all__ = ["Conv", "ConvTranspose"]


class ConvolutionValue(Derivation):
    """The layer's input as the solution of its linear equations.

    The premises say which: gradient(out) gives gradient constraints, value(out) weight constraints.
    """

    kind: ClassVar[str] = "convolution-value"

    def sentence(self) -> str:
        premises = {premise.kind for premise in self.premises}
        parts = []
        if "gradient" in premises:
            parts.append(f"{self.counts['gradient_constraints']} gradient constraints dl/dw = G·P")
        if "value" in premises:
            parts.append(f"{self.counts['weight_constraints']} weight constraints o - b = P·w")
        return f"{' and '.join(parts)} are solved for {self.counts['unknowns']} unknowns"

    def waits(self, node: Node, known: Knowledge) -> bool:
        """Unless the equations known of the convolution are all that can ever be known."""
        (o,) = node.outputs
        gradient_settled = known.exact(gradient(o)) or not known.observed(node.parameter("weight"))
        return not (gradient_settled and known.exact(value(o)))


class BiasGradient(Derivation):
    kind: ClassVar[str] = "convolution-bias-gradient"
    text: ClassVar[str] = "the layer has one output position: dl/do = db"


class ConvolutionInputGradient(Derivation):
    kind: ClassVar[str] = "convolution-input-gradient"
    text: ClassVar[str] = "dl/dx is the transposed convolution of dl/do"


@dataclass(frozen=True, slots=True)
class Grouped(Window):
    """A convolution or its adjoint: the channels stand in `groups` that do not mix."""

    abstract: ClassVar[bool] = True

    groups: int = 1


@dataclass(frozen=True, slots=True)
class Conv(Grouped):
    """Cross-correlation over 1 to 3 spatial axes, input (B, N, H_1..H_d), output (B, F, O_1..O_d).

    Node parameters: `weight` (F, N/groups, K_1..K_d) and optionally `bias` (F,). All fields are per
    spatial axis, in the order of the tensor's axes.
    """

    is_layer: ClassVar[bool] = True
    is_convolution: ClassVar[bool] = True
    channel_axis: ClassVar[int] = 1
    unread: ClassVar[Quality] = Quality.READ

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        sizes = (axis.positions for axis in self.spatial_axes(inputs[0][2:]))
        return [(inputs[0][0], parameters["weight"][0], *sizes)]

    def follow(
        self, old: Shapes, new: Shapes, parameters: Roles, stated: Shapes, width: int | None = None
    ) -> Followed:
        channels, filters = new[0][1], width or parameters["weight"][0]
        if channels % self.groups or filters % self.groups:
            raise ValueError(
                f"has {self.groups} groups, which would not divide its "
                f"{channels} channels and {filters} filters"
            )
        weight = (filters, channels // self.groups, *self.kernel)
        followed = {"weight": weight, "bias": (filters,)}
        return self, followed, self.output_shapes(new, followed, stated)[0]

    def geometry(self, source: Shape, weight: Shape) -> ConvolutionGeometry:
        axes = (Axis(source[0]), *self.spatial_axes(source[2:]))
        return ConvolutionGeometry(source[1], weight[0], axes, self.groups)

    def hyperparameters(self, graph: Graph, node: Node) -> dict[str, object]:
        filters = graph.parameters[node.parameter("weight") or ""].shape[0]
        per_axis = {name: list(sizes) for name, sizes in asdict(self).items() if name != "groups"}
        bias = node.parameter("bias") is not None
        return {"filters": filters, **per_axis, "groups": self.groups, "bias": bias}

    def derive(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        (x,), (o,) = node.inputs, node.outputs
        if reads_bias_once(known, node):
            yield BiasGradient(node.name, gradient(o))
        if known.exact(gradient(o)):
            yield ConvolutionInputGradient(
                node.name, known.input_gradient_fact(node), (gradient(o),)
            )
        if not known.exact(value(x)) and known.reached(node):
            yield from _solved(node, known)

    def stop(self, node: Node, known: Knowledge) -> str | None:
        bound = _available(known, node)
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
                f"its output is not known, and its {bound.gradient_constraints} gradient "
                f"constraints alone have at most rank {bound.gradient_rank}"
            )
        elif known.exact(gradient(o)):
            shared = known.graph.parameter_uses.get(node.parameter("weight") or "", 0) > 1
            why = "its weight is shared with another layer" if shared else "its weight is frozen"
        else:
            why = "the gradient of its output is not known"
        unread = f", {bound.unread} pixels are read by no tap" if bound.unread else ""
        return f"underdetermined: {why}{unread}; {have}"

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        y, shape = outputs[0], graph.shape(node.inputs[0])
        supports = [ALL] * len(shape)
        axes = zip(self.kernel, self.stride, self.padding_begin, self.dilation, strict=True)
        for a, window in enumerate(axes, start=2):
            if y.supports[a] != ALL:
                supports[a] = short(_read(y.supports[a], shape[a], *window), shape[a])
        return _shifted(self, y, shape, supports)


def _solved(node: Node, known: Knowledge) -> Iterator[Derivation]:
    """The layer's input, where its equations may have the rank."""
    (x,), (o,) = node.inputs, node.outputs
    bound = _available(known, node)
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


def _available(known: Knowledge, node: Node) -> LayerBound:
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


@dataclass(frozen=True, slots=True)
class ConvTranspose(Grouped, Affine):
    """The adjoint of a convolution, input (B, N, H_1..H_d), output (B, F, O_1..O_d).

    Node parameters: `weight` (N, F/groups, K_1..K_d) and optionally `bias` (F,). `padding_begin`
    and `padding_end` are cut off the full output; a negative end appends zeros (before the bias),
    which is what output padding means.
    """

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        sizes = (
            (axis.size - 1) * axis.stride
            + axis.dilation * (axis.kernel - 1)
            + 1
            - axis.padding_begin
            - axis.padding_end
            for axis in self.spatial_axes(inputs[0][2:])
        )
        return [(inputs[0][0], parameters["weight"][1] * self.groups, *sizes)]

    def stop(self, node: Node, known: Knowledge) -> str | None:
        return NOT_SOLVED

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        shape = graph.shape(node.inputs[0])
        return _shifted(self, outputs[0], shape, list(full(shape).supports))


def _shifted(op: Window, y: GradientRank, shape: Shape, supports: list[int]) -> GradientRank:
    """dl/dx is a sum over taps of a map of the channels and one shift per spatial axis.

    In a block with the channels every tap is a map of its own; in one without, taps that shift its
    axes alike are one.
    """
    supports[0] = y.supports[0]
    taps = prod(op.kernel)
    kernel = (1, 1, *op.kernel)
    terms = tuple(
        tuple(
            (block, rank * (taps if 1 in block else prod(kernel[a] for a in block)))
            for block, rank in term
        )
        for term in y.terms
    )
    return tidy(GradientRank(shape, tuple(supports), terms))


def _read(outputs: int, size: int, kernel: int, stride: int, begin: int, dilation: int) -> int:
    """Mask of the inputs that these outputs read along one axis."""
    mask = 0
    for position in range(outputs.bit_length()):
        if outputs >> position & 1:
            for tap in range(kernel):
                at = position * stride - begin + tap * dilation
                if 0 <= at < size:
                    mask |= 1 << at
    return mask
