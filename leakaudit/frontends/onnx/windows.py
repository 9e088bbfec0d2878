"""Kernel, stride, dilation and padding of the ONNX operators that slide a window."""

from __future__ import annotations

import math
from typing import NamedTuple

import onnx

from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.frontends.onnx.node import integers, text

LARGEST = 65_536  # of any number about a window; beyond it counting positions takes forever


class Window(NamedTuple):
    """A sliding window, one entry per spatial axis, in the order of the operators' fields."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    dilation: tuple[int, ...]


def read_window(node: onnx.NodeProto, sizes: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    """The window of a convolution or pooling over spatial axes of these sizes.

    Raises:
        NotUnderstoodError: Its attributes contradict each other, or its padding is negative.
    """
    if len(sizes) != len(kernel):
        raise NotUnderstoodError(f"its kernel has {len(kernel)} axes, its input {len(sizes)}")
    stride, dilation = strides(node, kernel)
    begin, end = _padding(node, sizes, kernel, stride, dilation)
    return Window(kernel, stride, begin, end, dilation)


def strides(
    node: onnx.NodeProto, kernel: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Stride and dilation.

    Raises:
        NotUnderstoodError: They do not fit the kernel. So in `explicit_padding`.
    """
    stride = integers(node, "strides", (1,) * len(kernel))
    dilation = integers(node, "dilations", (1,) * len(kernel))
    if not kernel or min(stride) < 1 or min(dilation) < 1 or min(kernel) < 1:
        raise NotUnderstoodError("its kernel, stride or dilation is below 1")
    if max(*stride, *dilation, *kernel) > LARGEST:
        raise NotUnderstoodError(f"its kernel, stride or dilation is above {LARGEST}")
    return stride, dilation


def explicit_padding(node: onnx.NodeProto, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after each axis, as `pads` states it."""
    pads = integers(node, "pads", (0,) * (2 * axes))
    if min(pads) < 0:
        raise NotUnderstoodError("its padding is negative")
    if max(pads) > LARGEST:
        raise NotUnderstoodError(f"its padding is above {LARGEST}")
    return pads[:axes], pads[axes:]


def halves(
    totals: tuple[int, ...], *, larger_first: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split padding into before and after, the odd one on the named side."""
    smaller = tuple(total // 2 for total in totals)
    larger = tuple(total - half for total, half in zip(totals, smaller, strict=True))
    return (larger, smaller) if larger_first else (smaller, larger)


def _padding(
    node: onnx.NodeProto,
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after each axis, from `pads` or `auto_pad`."""
    axes = len(kernel)
    mode = text(node, "auto_pad", "NOTSET")
    if mode == "VALID":
        return (0,) * axes, (0,) * axes
    if mode == "NOTSET":
        return explicit_padding(node, axes)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise NotUnderstoodError(f"its auto_pad is {mode!r}")
    totals = tuple(
        max((math.ceil(size / move) - 1) * move + step * (taps - 1) + 1 - size, 0)
        for size, taps, move, step in zip(sizes, kernel, stride, dilation, strict=True)
    )
    return halves(totals, larger_first=mode == "SAME_LOWER")
