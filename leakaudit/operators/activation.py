"""Activation functions y = act(o): the derivative is written in the output (R-CONV, table 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, prod
from typing import ClassVar

from leakaudit.facts.fact import Derivation, Quality, gradient, value
from leakaudit.facts.gradient_rank import summed_to
from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Followed, Graph, Node, face
from leakaudit.operators.base import Bound, ByElement, Opaque, Ranks, Roles, Shapes

__all__ = [
    "Activation",
    "ArcTan",
    "Celu",
    "Clip",
    "Elementwise",
    "Elu",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Mish",
    "PRelu",
    "Relu",
    "Selu",
    "Sigmoid",
    "Silu",
    "Softplus",
    "Softsign",
    "Tanh",
]


class ActivationGradient(Derivation):
    kind: ClassVar[str] = "activation-gradient"
    text: ClassVar[str] = "dl/do = dl/dy · act'(o), the derivative written in the output y"


class ActivationInverse(Derivation):
    kind: ClassVar[str] = "activation-inverse"

    def sentence(self) -> str:
        if self.quality is Quality.ACTIVE:
            return (
                "o = act⁻¹(y) where the activation is not flat; elsewhere only on which side o lies"
            )
        return "the activation is invertible: o = act⁻¹(y)"


class PositiveInverse(Derivation):
    kind: ClassVar[str] = "activation-positive-inverse"
    text: ClassVar[str] = (
        "o = act⁻¹(y) where y > 0: the curve rises wherever it is positive; elsewhere two inputs "
        "give one output, and only o <= 0 is known"
    )


@dataclass(frozen=True, slots=True)
class Activation(ByElement):
    """Base of the elementwise activation functions, each of which states its own traits.

    Attributes:
        straight: It is made of straight pieces: 0 stays 0 exactly, nothing is rounded.
        bends_at_zero: It has another formula on either side of o = 0, where y = 0 too.
    """

    abstract: ClassVar[bool] = True
    is_activation: ClassVar[bool] = True
    any_size: ClassVar[bool] = True
    straight: ClassVar[bool] = False
    bends_at_zero: ClassVar[bool] = False

    @property
    @face
    def monotone(self) -> bool:
        """Whether act' is a function of the output: two slopes must not give one output."""
        raise NotImplementedError

    @property
    @face
    def invertible(self) -> bool:
        """Whether it can be undone everywhere. The replay checks learned slopes."""
        raise NotImplementedError

    @property
    @face
    def saturation_levels(self) -> tuple[float, float] | None:
        """The outputs below and above which it is flat; None where it is flat nowhere."""
        raise NotImplementedError

    def derive(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        (o,), (y,) = node.inputs, node.outputs
        quality = known.quality(value(y))
        if (
            self.monotone
            and known.exact(gradient(y))
            and (quality is Quality.EXACT or _unknown_where_unread(known, y))
        ):
            yield ActivationGradient(
                node.name, known.input_gradient_fact(node), (gradient(y), value(y))
            )
        if quality is not None and quality > Quality.SCALED and self.monotone:
            best = quality if self.invertible else min(quality, Quality.ACTIVE)
            yield ActivationInverse(node.name, value(o), (value(y),), quality=best)

    def stop(self, node: Node, known: Knowledge) -> str | None:
        if not self.monotone:
            return "the activation is not monotone: its output does not tell its derivative"
        if not known.exact(gradient(node.outputs[0])):
            return "the gradient of its output is not known"
        return "the value of its output is not known"


def _unknown_where_unread(known: Knowledge, y: str) -> bool:
    """Whether y is unknown only where its one reader does not read it: there dl/dy is 0."""
    uses = known.graph.uses[y]
    if len(uses) != 1 or y in known.graph.outputs:
        return False
    unread = uses[0].node.op.unread
    return unread is not None and known.quality(value(y)) is unread


@dataclass(frozen=True, slots=True)
class Increasing(Activation):
    """Base of those that rise strictly everywhere."""

    abstract: ClassVar[bool] = True
    monotone: ClassVar[bool] = True
    invertible: ClassVar[bool] = True
    saturation_levels: ClassVar[None] = None


@dataclass(frozen=True, slots=True)
class Winding(Activation):
    """Base of those that fall and rise: a negative output does not tell its input.

    y = o · s(o) with 1/2 <= s <= 1 for o > 0, where y rises, and y <= 0 for o <= 0: a positive
    output has one pre-image, in [y, 2y]. The derivative follows there too, but a gradient with
    holes makes no gradient constraints: the path goes on by weight constraints alone.
    """

    abstract: ClassVar[bool] = True
    monotone: ClassVar[bool] = False
    invertible: ClassVar[bool] = False
    saturation_levels: ClassVar[None] = None

    @property
    def rises_where_positive(self) -> bool:
        """Whether it is of that form for its hyperparameters."""
        return True

    def derive(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        (o,), (y,) = node.inputs, node.outputs
        quality = known.quality(value(y))
        if self.rises_where_positive and quality is not None and quality > Quality.SCALED:
            yield PositiveInverse(node.name, value(o), (value(y),), Quality.ACTIVE)

    def stop(self, node: Node, known: Knowledge) -> str | None:
        if known.quality(value(node.inputs[0])) is not None:
            return (
                "the activation is not monotone: positive outputs tell their input, the others "
                "tell neither it nor their derivative"
            )
        return "the activation is not monotone: its output does not tell its derivative"


@dataclass(frozen=True, slots=True)
class Bent(Activation):
    """Base of those with another formula below 0 that rise for some of their hyperparameters."""

    abstract: ClassVar[bool] = True
    bends_at_zero: ClassVar[bool] = True
    saturation_levels: ClassVar[None] = None

    @property
    def invertible(self) -> bool:
        return self.monotone


@dataclass(frozen=True, slots=True)
class Relu(Activation):
    straight: ClassVar[bool] = True
    bends_at_zero: ClassVar[bool] = True
    monotone: ClassVar[bool] = True
    invertible: ClassVar[bool] = False
    saturation_levels: ClassVar[tuple[float, float]] = (0.0, inf)


@dataclass(frozen=True, slots=True)
class LeakyRelu(Activation):
    straight: ClassVar[bool] = True
    bends_at_zero: ClassVar[bool] = True
    saturation_levels: ClassVar[None] = None

    slope: float = 0.01

    @property
    def monotone(self) -> bool:
        return self.slope >= 0

    @property
    def invertible(self) -> bool:
        return self.slope > 0


@dataclass(frozen=True, slots=True)
class PRelu(Increasing):
    """Node parameter: `slope`, one value or one per channel (axis 1)."""

    straight: ClassVar[bool] = True
    bends_at_zero: ClassVar[bool] = True

    def follow(
        self, old: Shapes, new: Shapes, parameters: Roles, stated: Shapes, width: int | None = None
    ) -> Followed:
        slope, channels = parameters["slope"], new[0][1]
        if prod(slope) == 1:
            return self, {}, new[0]
        if prod(slope) != old[0][1]:
            raise ValueError(f"has slopes of the shape {slope}")
        return self, {"slope": tuple(channels if s == old[0][1] else s for s in slope)}, new[0]


@dataclass(frozen=True, slots=True)
class Elu(Bent):
    """o where o > 0, else alpha · (e^o - 1)."""

    alpha: float = 1.0

    @property
    def monotone(self) -> bool:
        return self.alpha > 0


@dataclass(frozen=True, slots=True)
class Celu(Bent):
    """o where o > 0, else alpha · (e^(o/alpha) - 1)."""

    alpha: float = 1.0

    @property
    def monotone(self) -> bool:
        return self.alpha > 0


@dataclass(frozen=True, slots=True)
class Selu(Bent):
    """gamma · o where o > 0, else gamma · alpha · (e^o - 1)."""

    alpha: float = 1.6732632423543772
    gamma: float = 1.0507009873554805

    @property
    def monotone(self) -> bool:
        return self.alpha > 0 and self.gamma > 0


@dataclass(frozen=True, slots=True)
class Sigmoid(Increasing):
    pass


@dataclass(frozen=True, slots=True)
class Tanh(Increasing):
    pass


@dataclass(frozen=True, slots=True)
class ArcTan(Increasing):
    pass


@dataclass(frozen=True, slots=True)
class Softplus(Increasing):
    pass


@dataclass(frozen=True, slots=True)
class Softsign(Increasing):
    """o / (1 + |o|)."""


@dataclass(frozen=True, slots=True)
class Clip(Activation):
    """min(max(o, low), high): Hardtanh, ReLU6; infinite ends stand for none."""

    straight: ClassVar[bool] = True
    monotone: ClassVar[bool] = True

    low: float
    high: float

    @property
    def invertible(self) -> bool:
        return self.low == -inf and self.high == inf

    @property
    def saturation_levels(self) -> tuple[float, float]:
        return self.low, self.high


@dataclass(frozen=True, slots=True)
class HardSigmoid(Activation):
    """max(0, min(1, alpha · o + beta))."""

    invertible: ClassVar[bool] = False
    saturation_levels: ClassVar[tuple[float, float]] = (0.0, 1.0)

    alpha: float = 0.2
    beta: float = 0.5

    @property
    def monotone(self) -> bool:
        return self.alpha > 0


@dataclass(frozen=True, slots=True)
class Silu(Winding):
    """o · sigmoid(beta · o)."""

    beta: float = 1.0

    @property
    def rises_where_positive(self) -> bool:
        return self.beta >= 0


@dataclass(frozen=True, slots=True)
class Gelu(Winding):
    """o · Φ(o), or its tanh approximation."""

    approximate: bool = False


@dataclass(frozen=True, slots=True)
class Mish(Winding):
    """o · tanh(softplus(o))."""


@dataclass(frozen=True, slots=True)
class HardSwish(Winding):
    """o · max(0, min(1, o/6 + 1/2))."""


@dataclass(frozen=True, slots=True)
class Identity(Increasing):
    """Also Dropout in evaluation mode, and casts between floating types."""

    straight: ClassVar[bool] = True
    only_rearranges: ClassVar[bool] = True

    def derive(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        """The gradient passes by itself; the value as with any other activation."""
        (y,) = node.outputs
        if known.exact(gradient(y)):
            yield ActivationGradient(node.name, known.input_gradient_fact(node), (gradient(y),))
        yield from Activation.derive(self, node, known)

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return summed_to(outputs[0], graph.shape(node.inputs[index]))


@dataclass(frozen=True, slots=True)
class Elementwise(ByElement, Opaque):
    """Another function of each element: known to the execution, not to the leak path.

    `function` is one of abs, ceil, cos, cosh, erf, exp, floor, log, reciprocal, round, rsqrt,
    sign, sin, sinh, sqrt, square, tan, acos, acosh, asin, asinh, atanh.
    """

    any_size: ClassVar[bool] = True
    reason: ClassVar[str] = "its derivative needs its input, which is not known"

    function: str
