"""Normalisation: affine with known constants in evaluation mode, otherwise with unknown statistics.

Where it divides by statistics of its own input, y = scale · x̂ + bias and o = σ · x̂ + μ: below a
convolution, σ and μ are further unknowns of linear equations.

Affine parameters are the node parameters `scale` and `bias`, both optional.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import ClassVar

from leakaudit.counting.bound import LayerBound, layer_bound
from leakaudit.counting.geometry import Axis, geometry_of
from leakaudit.facts.fact import Derivation, Quality, gradient, value
from leakaudit.facts.general import affine_gradients, reads_bias_once, reads_once
from leakaudit.facts.gradient_rank import mixed
from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Followed, Graph, Node, Operator, Shape
from leakaudit.operators.base import Bound, Opaque, Ranks, Roles, Shapes

__all__ = [
    "BatchNorm",
    "GroupNorm",
    "LayerNorm",
    "LocalResponseNorm",
    "LpNormalization",
    "RmsNorm",
    "Softmax",
]


# Dense least squares of more unknowns take minutes.
MOST_UNKNOWNS = 4096


class BatchNormInverse(Derivation):
    kind: ClassVar[str] = "batch-norm-inverse"
    text: ClassVar[str] = "in evaluation mode it is affine with known constants: undone"


class BiasGradient(Derivation):
    kind: ClassVar[str] = "bias-gradient"
    text: ClassVar[str] = "its bias is read once per output value: dl/dy = db"


class AffineValue(Derivation):
    kind: ClassVar[str] = "normalised-value"
    text: ClassVar[str] = (
        "its scale is read once per output value: dscale = dl/dy · x̂ gives the normalised x̂, and "
        "y = scale · x̂ + bias, where dl/dy is not 0"
    )


class NormalisedConvolutionValue(Derivation):
    """The input of the convolution `node` below a normalisation, whose output the premises are of.

    Up to one factor where the equations are homogeneous: no bias tells how large the output was.
    """

    kind: ClassVar[str] = "normalised-convolution-value"

    def sentence(self) -> str:
        """Name the equations that are solved."""
        parts = [f"{self.counts['weight_constraints']} weight constraints P·w - σ·x̂ - μ = -b"]
        if self.counts["gradient_constraints"]:
            number = self.counts["gradient_constraints"]
            parts.insert(0, f"{number} gradient constraints σ·dl/dw = (σ·G)·P")
        return (
            f"{' and '.join(parts)} are solved for {self.counts['unknowns']} unknowns and "
            f"{self.counts['statistics']} statistics of the normalisation behind it"
        )

    def waits(self, node: Node, known: Knowledge) -> bool:
        """Unless all is known of the normalisation's output."""
        (y,) = node.outputs
        return not known.exact(gradient(y), value(y))


@dataclass(frozen=True, slots=True)
class Normalisation(Operator):
    """Base of those that divide by a statistic of their input.

    Attributes:
        centred: It subtracts a mean first.
    """

    abstract: ClassVar[bool] = True
    centred: ClassVar[bool] = True

    def groups_of(self, shape: Shape) -> int | None:
        """How many parts of one example, contiguous and of one size, have statistics of their own.

        None where it is of another form, which is not followed.
        """
        return None

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        return inputs[:1]

    def derive(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        (y,) = node.outputs
        if reads_bias_once(known, node):
            yield BiasGradient(node.name, gradient(y))
        if reads_once(known, node, "scale") and known.exact(gradient(y)):
            yield AffineValue(node.name, value(y), (gradient(y),), Quality.SEEN)
        below = _below(self, node, known)
        if below is not None and below.may_suffice and not known.exact(value(below.input)):
            yield below.derivation(y)

    def stop(self, node: Node, known: Knowledge) -> str | None:
        below = _below(self, node, known)
        if below is None:
            return (
                "it divides by a statistic of its input, which is not known: neither value nor "
                "gradient passes"
            )
        return below.stop(known)


@dataclass(frozen=True, slots=True)
class LastAxes(Normalisation):
    """Base of those over the last `axes` axes."""

    abstract: ClassVar[bool] = True

    axes: int
    epsilon: float = 1e-5

    def groups_of(self, shape: Shape) -> int | None:
        return prod(shape[: -self.axes])

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return mixed(outputs[0], range(len(outputs[0].shape))[-self.axes :])


@dataclass(frozen=True, slots=True)
class BatchNorm(Normalisation):
    """Per channel (axis 1). Node parameters: `scale`, `bias`, `mean`, `variance`, each (N,).

    In evaluation mode an affine map with known constants. With `training` it normalises by the
    statistics of the batch itself.
    """

    epsilon: float = 1e-5
    training: bool = False

    def groups_of(self, shape: Shape) -> int | None:
        return shape[1] if self.training else None

    def derive(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        yield from Normalisation.derive(self, node, known)
        if self.training:
            return
        yield from affine_gradients(node, known, 0)
        x, y = node.inputs[0], node.outputs[0]
        quality = known.quality(value(y))
        if quality is not None and quality > Quality.SCALED:
            yield BatchNormInverse(node.name, value(x), (value(y),), quality)

    def stop(self, node: Node, known: Knowledge) -> str | None:
        return Normalisation.stop(self, node, known) if self.training else None

    def follow(
        self, old: Shapes, new: Shapes, parameters: Roles, stated: Shapes, width: int | None = None
    ) -> Followed:
        return self, dict.fromkeys(parameters, new[0][1:2]), new[0]

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        (y,) = outputs
        return mixed(y, [a for a in range(len(y.shape)) if a != 1]) if self.training else y


@dataclass(frozen=True, slots=True)
class LayerNorm(LastAxes):
    """Over the last `axes` axes. Node parameters have the shape of those axes."""


@dataclass(frozen=True, slots=True)
class RmsNorm(LastAxes):
    """x / sqrt(mean(x²) + epsilon) over the last `axes` axes; node parameter `scale`."""

    centred: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class GroupNorm(Normalisation):
    """Per example over groups of channels; `groups` = N is instance normalisation.

    Node parameters `scale` and `bias`, each (N,).
    """

    groups: int
    epsilon: float = 1e-5

    def follow(
        self, old: Shapes, new: Shapes, parameters: Roles, stated: Shapes, width: int | None = None
    ) -> Followed:
        if new[0][1] % self.groups:
            raise ValueError(f"normalises {self.groups} groups of channels")
        return self, dict.fromkeys(parameters, new[0][1:2]), new[0]

    def groups_of(self, shape: Shape) -> int | None:
        return self.groups

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return None


@dataclass(frozen=True, slots=True)
class LocalResponseNorm(Normalisation):
    """x / (bias + alpha/size · sum of squares over `size` neighbouring channels)^beta."""

    any_size: ClassVar[bool] = True

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return mixed(outputs[0], [1])


@dataclass(frozen=True, slots=True)
class LpNormalization(Normalisation):
    """x divided by its p-norm along `axis` (>= 0)."""

    any_size: ClassVar[bool] = True

    axis: int
    p: int = 2

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return mixed(outputs[0], [self.axis])


@dataclass(frozen=True, slots=True)
class Softmax(Opaque):
    """Along `axis` (>= 0); `log` for its logarithm."""

    any_size: ClassVar[bool] = True
    reason: ClassVar[str] = "softmax forgets what all its inputs have in common"

    axis: int
    log: bool = False

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        return inputs[:1]

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return mixed(outputs[0], [self.axis])


@dataclass(frozen=True, slots=True)
class _Below:
    """The equations of a convolution whose output is normalised.

    Attributes:
        node: The convolution.
        bound: What its equations could be if σ and μ were known.
        groups: How many parts of its output have statistics of their own.
        statistics: How many further unknowns these are.
        homogeneous: No right-hand side: with x, σ and μ every multiple of them is a solution.
        factors: Into how many systems of their own the equations fall apart, at least.
        shifts: How many patterns can be added to its input that only move the means, at least.
    """

    node: Node
    bound: LayerBound
    groups: int
    statistics: int
    homogeneous: bool
    factors: int
    shifts: int

    @property
    def input(self) -> str:
        """The tensor that is sought."""
        return self.node.inputs[0]

    @property
    def unknowns(self) -> int:
        """Of the system, statistics included, less the factor that stays open."""
        return self.bound.unknowns + self.statistics - self.homogeneous

    @property
    def rank(self) -> int:
        """A bound on the rank of the system."""
        bound = self.bound
        rows = bound.weight_constraints + bound.gradient_rank
        rows += self.groups if bound.gradient_constraints else 0
        hidden = self.shifts + (self.factors - 1 if self.homogeneous else 0)
        return min(self.unknowns - hidden, bound.rank + self.statistics, rows)

    @property
    def may_suffice(self) -> bool:
        """Whether the bound lets the equations fix the input, and they are few enough to solve."""
        return self.rank == self.unknowns <= MOST_UNKNOWNS and not self.bound.unread

    def derivation(self, y: str) -> NormalisedConvolutionValue:
        """What follows of the input from the output y of the normalisation."""
        gradients = self.bound.gradient_constraints
        premises = (gradient(y), value(y)) if gradients else (value(y),)
        return NormalisedConvolutionValue(
            self.node.name,
            value(self.input),
            premises,
            Quality.SCALED if self.homogeneous else Quality.EXACT,
            counts={
                "unknowns": self.bound.unknowns,
                "unread": self.bound.unread,
                "statistics": self.statistics,
                "gradient_constraints": gradients,
                "weight_constraints": self.bound.weight_constraints,
                "rank_bound": self.rank,
            },
        )

    def stop(self, known: Knowledge) -> str:
        """Why its output is not known exactly."""
        what = "it divides by a statistic of its input, one more unknown of the layer below"
        if known.quality(value(self.input)) is not None:
            return f"{what}: {self.input} follows up to one factor, which nothing fixes"
        if self.rank < self.unknowns:
            return f"{what}: rank bound {self.rank} of {self.unknowns} unknowns"
        if self.bound.unread:
            return f"{what}, of whose input {self.bound.unread} pixels are read by no tap"
        return f"{what}: more than the {MOST_UNKNOWNS} unknowns are not solved, {self.unknowns}"


def _below(op: Normalisation, node: Node, known: Knowledge) -> _Below | None:
    """The equations of the convolution below; None where there is none, or y is not known."""
    graph = known.graph
    (o,), (y,) = node.inputs, node.outputs
    layer = graph.producers.get(o)
    shape = graph.shape(o)
    groups = op.groups_of(shape)
    known_well = (known.quality(value(y)) or 0) > Quality.SCALED
    if layer is None or not layer.op.is_convolution or not groups or not known_well:
        return None
    filters = shape[1]
    # dl/dw is σ times a known product only where one σ belongs to the whole of a filter's output.
    if shape[0] != 1 or filters % groups:
        return None
    gradients = (
        known.exact(gradient(y), value(y))
        and known.observed(layer.parameter("weight"))
        and len(graph.uses[o]) == 1
        and o not in graph.outputs
    )
    geometry = geometry_of(graph, layer)
    bound = layer_bound(
        replace(geometry, observed=gradients, outputs_known=True, gradient_rank=known.rank(layer))
    )
    # A mean over one channel takes the bias of the convolution with it.
    absorbed = op.centred and groups == filters
    # dl/do sums to 0 over what shares a mean. Where that is one channel, gradient constraints do
    # not see an addition to all of its outputs either.
    shifts = 0
    if op.centred and (absorbed or not gradients):
        shifts = geometry.channels * _seen_alike(geometry.axes) + groups - filters
    return _Below(
        layer,
        bound,
        groups,
        groups * (1 + op.centred),
        homogeneous=absorbed or layer.parameter("bias") is None,
        factors=gcd(geometry.groups, groups),
        shifts=max(0, shifts),
    )


def _seen_alike(axes: Sequence[Axis]) -> int:
    """Of how many stride phases every pixel looks the same from every output position.

    Their taps read no padding anywhere: one constant on all pixels of the phase gives every
    position the same patch, and every output of a filter the same addition.
    """
    alike = 1
    for axis in axes:
        whole: dict[int, bool] = {}
        for tap in range(axis.kernel):
            everywhere = len(axis.reads(tap)) == axis.positions
            whole[axis.phase(tap)] = whole.get(axis.phase(tap), True) and everywhere
        alike *= sum(whole.values())
    return alike
