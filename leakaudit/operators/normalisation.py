"""Normalisation: affine with known constants in evaluation mode, otherwise the end of a path.

Affine parameters are the node parameters `scale` and `bias`, both optional.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from leakaudit.facts.fact import Derivation, Quality, gradient, value
from leakaudit.facts.general import affine_gradients, reads_bias_once, reads_once
from leakaudit.facts.gradient_rank import mixed
from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Graph, Node, Operator
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


@dataclass(frozen=True, slots=True)
class Normalisation(Operator):
    """Base of those that divide by a statistic of their input."""

    abstract: ClassVar[bool] = True

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        return inputs[:1]

    def derive(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        (y,) = node.outputs
        if reads_bias_once(known, node):
            yield BiasGradient(node.name, gradient(y))
        if reads_once(known, node, "scale") and known.exact(gradient(y)):
            yield AffineValue(node.name, value(y), (gradient(y),), Quality.SEEN)

    def stop(self, node: Node, known: Knowledge) -> str | None:
        return (
            "it divides by a statistic of its input, which is not known: neither value nor "
            "gradient passes"
        )


@dataclass(frozen=True, slots=True)
class LastAxes(Normalisation):
    """Base of those over the last `axes` axes."""

    abstract: ClassVar[bool] = True

    axes: int
    epsilon: float = 1e-5

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
        if self.training:
            return "batch normalisation in training mode divides by statistics that are not known"
        return None

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        (y,) = outputs
        return mixed(y, [a for a in range(len(y.shape)) if a != 1]) if self.training else y


@dataclass(frozen=True, slots=True)
class LayerNorm(LastAxes):
    """Over the last `axes` axes. Node parameters have the shape of those axes."""


@dataclass(frozen=True, slots=True)
class RmsNorm(LastAxes):
    """x / sqrt(mean(x²) + epsilon) over the last `axes` axes; node parameter `scale`."""


@dataclass(frozen=True, slots=True)
class GroupNorm(Normalisation):
    """Per example over groups of channels; `groups` = N is instance normalisation.

    Node parameters `scale` and `bias`, each (N,).
    """

    groups: int
    epsilon: float = 1e-5

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return None


@dataclass(frozen=True, slots=True)
class LocalResponseNorm(Normalisation):
    """x / (bias + alpha/size · sum of squares over `size` neighbouring channels)^beta."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return mixed(outputs[0], [1])


@dataclass(frozen=True, slots=True)
class LpNormalization(Normalisation):
    """x divided by its p-norm along `axis` (>= 0)."""

    axis: int
    p: int = 2

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return mixed(outputs[0], [self.axis])


@dataclass(frozen=True, slots=True)
class Softmax(Opaque):
    """Along `axis` (>= 0); `log` for its logarithm."""

    reason: ClassVar[str] = "softmax forgets what all its inputs have in common"

    axis: int
    log: bool = False

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        return inputs[:1]

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        return mixed(outputs[0], [self.axis])
