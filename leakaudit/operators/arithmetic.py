"""Arithmetic between tensors, parameters and constants, with numpy's broadcasting."""

from __future__ import annotations

from dataclasses import dataclass

from leakaudit.graph import Operator


@dataclass(frozen=True, slots=True)
class Add(Operator):
    """x + y; the two inputs may be tensors or parameters."""


@dataclass(frozen=True, slots=True)
class Sub(Operator):
    """x - y."""


@dataclass(frozen=True, slots=True)
class Mul(Operator):
    """x · y, elementwise.

    `zeros` counts the elements of the output that a stored factor sets to 0, where its numbers were
    read: a mask. What it multiplies there has no influence on anything behind.
    """

    zeros: int = 0


@dataclass(frozen=True, slots=True)
class Div(Operator):
    """x / y, elementwise, floating types only."""


@dataclass(frozen=True, slots=True)
class Pow(Operator):
    """x to the power of y, elementwise."""


@dataclass(frozen=True, slots=True)
class Scale(Operator):
    """factor · x + offset with plain numbers: scalar arithmetic, negation."""

    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class MatMul(Operator):
    """numpy.matmul of two inputs, at least one of them an activation."""


@dataclass(frozen=True, slots=True)
class Einsum(Operator):
    """numpy.einsum of one or two inputs; no ellipsis."""

    equation: str


@dataclass(frozen=True, slots=True)
class Attention(Operator):
    """softmax(q kᵀ · scale + mask) v over the last two axes.

    Inputs q (.., T, E), k (.., S, E), v (.., S, V) and optionally an additive mask; the leading
    axes of k and v are repeated to q's where `grouped` is set (grouped queries).
    """

    scale: float
    causal: bool = False
    grouped: bool = False
