"""Kernel, stride, dilation and padding of the ONNX operators that slide a window."""

from __future__ import annotations

import math
from typing import NamedTuple

import onnx

from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.frontends.onnx.node import integers, text

LARGEST = 65_536  # of any number about a window; beyond it counting positions takes forever


Sizes = tuple[int, ...]  # one entry per spatial axis


class Window(NamedTuple):
    """A sliding window, in the order of the operators' fields."""

    kernel: Sizes
    stride: Sizes
    begin: Sizes
    end: Sizes
    dilation: Sizes


def read_window(node: onnx.NodeProto, sizes: Sizes, kernel: Sizes) -> Window:
    """The window of a convolution or pooling over spatial axes of these sizes.

    Raises:
        NotUnderstoodError: Its attributes contradict each other, or its padding is negative.
    """
    if len(sizes) != len(kernel):
        raise NotUnderstoodError(f"its kernel has {len(kernel)} axes, its input {len(sizes)}")
    stride, dilation = strides(node, kernel)
    mode = text(node, "auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        totals = tuple(
            max((math.ceil(size / move) - 1) * move + step * (taps - 1) + 1 - size, 0)
            for size, taps, move, step in zip(sizes, kernel, stride, dilation, strict=True)
        )
        begin, end = halves(totals, larger_first=mode == "SAME_LOWER")
    else:
        begin, end = explicit_padding(node, len(kernel), mode)
    return Window(kernel, stride, begin, end, dilation)


def strides(node: onnx.NodeProto, kernel: Sizes) -> tuple[Sizes, Sizes]:
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


def explicit_padding(node: onnx.NodeProto, axes: int, mode: str) -> tuple[Sizes, Sizes]:
    """Padding before and after each axis, as `pads` states it; none where `auto_pad` is VALID."""
    if mode == "VALID":
        return (0,) * axes, (0,) * axes
    if mode != "NOTSET":
        raise NotUnderstoodError(f"its auto_pad is {mode!r}")
    pads = integers(node, "pads", (0,) * (2 * axes))
    if min(pads) < 0:
        raise NotUnderstoodError("its padding is negative")
    if max(pads) > LARGEST:
        raise NotUnderstoodError(f"its padding is above {LARGEST}")
    return pads[:axes], pads[axes:]


def halves(totals: Sizes, *, larger_first: bool) -> tuple[Sizes, Sizes]:
    """Split padding into before and after, the odd one on the named side."""
    smaller = tuple(total // 2 for total in totals)
    larger = tuple(total - half for total, half in zip(totals, smaller, strict=True))
    return (larger, smaller) if larger_first else (smaller, larger)
