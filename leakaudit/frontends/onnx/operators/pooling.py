"""Pooling over windows or whole images."""

from __future__ import annotations

import onnx

from leakaudit import operators as ops
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.frontends.onnx.context import Builder, Builders, Context
from leakaudit.frontends.onnx.node import integer, integer_list
from leakaudit.frontends.onnx.operators.reduction import over
from leakaudit.frontends.onnx.windows import Window, read_window


def global_pool(function: str) -> Builder:
    """A builder for a reduction over all spatial axes."""

    def build(context: Context, node: onnx.NodeProto) -> None:
        x = context.real(node, 0)
        axes = tuple(range(2, len(context.shape(x))))
        context.layer(node, over(function, axes), (x,))

    return build


def global_lp_pool(context: Context, node: onnx.NodeProto) -> None:
    """GlobalLpPool: one window as large as the image."""
    x = context.real(node, 0)
    sizes = context.shape(x)[2:]
    p = integer(node, "p", 2)
    if p < 1 or not sizes or min(sizes) < 1:
        raise NotUnderstoodError("its p or its input is below 1")
    ones, zeros = (1,) * len(sizes), (0,) * len(sizes)
    context.layer(node, ops.LpPool(sizes, ones, zeros, zeros, ones, float(p)), (x,))


def max_pool(context: Context, node: onnx.NodeProto) -> None:
    """MaxPool; its second output, where the maxima stood, is not understood."""
    x, window, ceil = _window(context, node)
    context.layer(node, ops.MaxPool(*window, ceil), (x,))


def average_pool(context: Context, node: onnx.NodeProto) -> None:
    """AveragePool; padding counts in the divisor only where the node says so."""
    x, window, ceil = _window(context, node)
    include_padding = integer(node, "count_include_pad", 0) != 0
    context.layer(node, ops.AveragePool(*window, include_padding, ceil), (x,))


def _lp_pool(context: Context, node: onnx.NodeProto) -> None:
    x, window, ceil = _window(context, node)
    p = integer(node, "p", 2)
    if p < 1:
        raise NotUnderstoodError("its p is below 1")
    context.layer(node, ops.LpPool(*window, float(p), ceil), (x,))


def _window(context: Context, node: onnx.NodeProto) -> tuple[str, Window, bool]:
    x = context.real(node, 0)
    sizes = context.shape(x)[2:]
    kernel = integer_list(node, "kernel_shape")
    if kernel is None or not sizes:
        raise NotUnderstoodError("it has no kernel_shape, or its input no spatial axes")
    window = read_window(node, sizes, kernel)
    ceil = integer(node, "ceil_mode", 0) != 0
    found = context.shape(node.output[0])[2:]
    floor = [axis.positions for axis in ops.MaxPool(*window).spatial_axes(sizes)]
    # How far to round up is the file's to say: tools disagree on a window in the padding alone.
    most = 1 if ceil else 0
    if not all(0 <= size - least <= most for size, least in zip(found, floor, strict=True)):
        raise NotUnderstoodError("its output's shape contradicts its attributes")
    return x, window, ceil


BUILDERS: Builders = {
    "AveragePool": average_pool,
    "GlobalAveragePool": global_pool("mean"),
    "GlobalLpPool": global_lp_pool,
    "GlobalMaxPool": global_pool("max"),
    "LpPool": _lp_pool,
    "MaxPool": max_pool,
}
