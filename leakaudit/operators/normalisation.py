"""Normalisation. Affine parameters are the node parameters `scale` and `bias`, both optional."""

from __future__ import annotations

from dataclasses import dataclass

from leakaudit.graph import Operator


@dataclass(frozen=True, slots=True)
class BatchNorm(Operator):
    """Per channel (axis 1). Node parameters: `scale`, `bias`, `mean`, `variance`, each (N,).

    In evaluation mode an affine map with known constants. With `training` it normalises by the
    statistics of the batch itself.
    """

    epsilon: float = 1e-5
    training: bool = False


@dataclass(frozen=True, slots=True)
class LayerNorm(Operator):
    """Over the last `axes` axes. Node parameters have the shape of those axes."""

    axes: int
    epsilon: float = 1e-5


@dataclass(frozen=True, slots=True)
class RmsNorm(Operator):
    """x / sqrt(mean(x²) + epsilon) over the last `axes` axes; node parameter `scale`."""

    axes: int
    epsilon: float = 1e-5


@dataclass(frozen=True, slots=True)
class GroupNorm(Operator):
    """Per example over groups of channels; `groups` = N is instance normalisation.

    Node parameters `scale` and `bias`, each (N,).
    """

    groups: int
    epsilon: float = 1e-5


@dataclass(frozen=True, slots=True)
class LocalResponseNorm(Operator):
    """x / (bias + alpha/size · sum of squares over `size` neighbouring channels)^beta."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0


@dataclass(frozen=True, slots=True)
class LpNormalization(Operator):
    """x divided by its p-norm along `axis` (>= 0)."""

    axis: int
    p: int = 2


@dataclass(frozen=True, slots=True)
class Softmax(Operator):
    """Along `axis` (>= 0); `log` for its logarithm."""

    axis: int
    log: bool = False
