"""Pooling over the spatial axes of (B, N, H_1..H_d). Fields are per spatial axis."""

from __future__ import annotations

from dataclasses import dataclass

from leakaudit.graph import Operator


@dataclass(frozen=True, slots=True)
class MaxPool(Operator):
    """Largest value of each window; padding counts as minus infinity.

    With `ceil` (round the number of positions up) the last window may reach past the padding.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding_begin: tuple[int, ...]
    padding_end: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil: bool = False


@dataclass(frozen=True, slots=True)
class AveragePool(Operator):
    """Mean of each window; `include_padding` says whether padding counts in the divisor.

    What a window reaches past the padding (with `ceil`) never counts.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding_begin: tuple[int, ...]
    padding_end: tuple[int, ...]
    dilation: tuple[int, ...]
    include_padding: bool = True
    ceil: bool = False


@dataclass(frozen=True, slots=True)
class AdaptiveAveragePool(Operator):
    """PyTorch's adaptive average pooling to the spatial sizes of the output tensor."""


@dataclass(frozen=True, slots=True)
class LpPool(Operator):
    """(sum of |x|^p)^(1/p) of each window, zero padding."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding_begin: tuple[int, ...]
    padding_end: tuple[int, ...]
    dilation: tuple[int, ...]
    p: float = 2.0
    ceil: bool = False
