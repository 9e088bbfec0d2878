"""Activation functions, elementwise."""

from __future__ import annotations

from dataclasses import dataclass

from leakaudit.graph import Operator


@dataclass(frozen=True, slots=True)
class Activation(Operator):
    """Base of the elementwise activation functions."""


@dataclass(frozen=True, slots=True)
class Relu(Activation):
    pass


@dataclass(frozen=True, slots=True)
class LeakyRelu(Activation):
    slope: float = 0.01


@dataclass(frozen=True, slots=True)
class PRelu(Activation):
    """Node parameter: `slope`, one value or one per channel (axis 1)."""


@dataclass(frozen=True, slots=True)
class Elu(Activation):
    """o where o > 0, else alpha · (e^o - 1)."""

    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class Celu(Activation):
    """o where o > 0, else alpha · (e^(o/alpha) - 1)."""

    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class Selu(Activation):
    """gamma · o where o > 0, else gamma · alpha · (e^o - 1)."""

    alpha: float = 1.6732632423543772
    gamma: float = 1.0507009873554805


@dataclass(frozen=True, slots=True)
class Sigmoid(Activation):
    pass


@dataclass(frozen=True, slots=True)
class Tanh(Activation):
    pass


@dataclass(frozen=True, slots=True)
class ArcTan(Activation):
    pass


@dataclass(frozen=True, slots=True)
class Softplus(Activation):
    pass


@dataclass(frozen=True, slots=True)
class Softsign(Activation):
    """o / (1 + |o|)."""


@dataclass(frozen=True, slots=True)
class Clip(Activation):
    """min(max(o, low), high): Hardtanh, ReLU6; infinite ends stand for none."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class HardSigmoid(Activation):
    """max(0, min(1, alpha · o + beta))."""

    alpha: float = 0.2
    beta: float = 0.5


@dataclass(frozen=True, slots=True)
class Silu(Activation):
    """o · sigmoid(beta · o). Not monotone."""

    beta: float = 1.0


@dataclass(frozen=True, slots=True)
class Gelu(Activation):
    """o · Φ(o), or its tanh approximation. Not monotone."""

    approximate: bool = False


@dataclass(frozen=True, slots=True)
class Mish(Activation):
    """o · tanh(softplus(o)). Not monotone."""


@dataclass(frozen=True, slots=True)
class HardSwish(Activation):
    """o · max(0, min(1, o/6 + 1/2)). Not monotone."""


@dataclass(frozen=True, slots=True)
class Identity(Activation):
    """Also Dropout in evaluation mode, and casts between floating types."""


@dataclass(frozen=True, slots=True)
class Elementwise(Operator):
    """Another function of each element: known to the execution, not to the leak path.

    `function` is one of abs, ceil, cos, cosh, erf, exp, floor, log, reciprocal, round, rsqrt,
    sign, sin, sinh, sqrt, square, tan, acos, acosh, asin, asinh, atanh.
    """

    function: str
