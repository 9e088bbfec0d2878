"""Layers with weights."""

from __future__ import annotations

from dataclasses import dataclass

from leakaudit.graph import Operator


@dataclass(frozen=True, slots=True)
class Conv(Operator):
    """Cross-correlation over 1 to 3 spatial axes, input (B, N, H_1..H_d), output (B, F, O_1..O_d).

    Node parameters: `weight` (F, N/groups, K_1..K_d) and optionally `bias` (F,). All fields are per
    spatial axis, in the order of the tensor's axes.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding_begin: tuple[int, ...]
    padding_end: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1


@dataclass(frozen=True, slots=True)
class ConvTranspose(Operator):
    """The adjoint of a convolution, input (B, N, H_1..H_d), output (B, F, O_1..O_d).

    Node parameters: `weight` (N, F/groups, K_1..K_d) and optionally `bias` (F,). `padding_begin`
    and `padding_end` are cut off the full output; a negative end appends zeros (before the bias),
    which is what output padding means.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding_begin: tuple[int, ...]
    padding_end: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1


@dataclass(frozen=True, slots=True)
class Linear(Operator):
    """Dense layer y = alpha · x Wᵀ + beta · b on the last axis; leading axes: batch and tokens.

    Node parameters: `weight`, stored (out, in), or (in, out) where `transposed` is set, and
    optionally `bias` (out,).
    """

    in_features: int
    out_features: int
    transposed: bool = False
    alpha: float = 1.0
    beta: float = 1.0


@dataclass(frozen=True, slots=True)
class Embedding(Operator):
    """Rows of a stored table by integer index. Node parameter: `weight` (rows, D).

    Input: integer indices (..); output: (.., D). A constant index is an input that is a parameter.
    """
