"""Reductions over axes, and pooling over windows or whole images."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from leakaudit import operators as ops
from leakaudit.frontends.onnx.context import Builder, Context
from leakaudit.frontends.onnx.node import NotUnderstoodError, integer, integer_list
from leakaudit.frontends.onnx.operators.shape import axis_of
from leakaudit.frontends.onnx.windows import Window, read_window

# From these versions on the axes are an input; ReduceSum took the step earlier than the others.
AXES_ARE_INPUT = 18
SUM_AXES_ARE_INPUT = 13


def reduction(function: str) -> Builder:
    """A builder for a reduction."""

    def build(context: Context, node: onnx.NodeProto) -> None:
        x = context.real(node, 0)
        context.layer(node, _reduce(context, node, function, x), (x,))

    return build


def sum_of_squares(context: Context, node: onnx.NodeProto) -> None:
    """ReduceSumSquare."""
    x = context.real(node, 0)
    op = _reduce(context, node, "sum", x)
    x = context.step(node, "square", ops.Elementwise("square"), (x,), context.shape(x))
    context.layer(node, op, (x,))


def log_of_sum(context: Context, node: onnx.NodeProto) -> None:
    """ReduceLogSum."""
    x = context.real(node, 0)
    op = _reduce(context, node, "sum", x)
    x = context.step(node, "sum", op, (x,), context.shape(node.output[0]))
    context.layer(node, ops.Elementwise("log"), (x,))


def _reduce(context: Context, node: onnx.NodeProto, function: str, x: str) -> ops.Reduce:
    axes = _axes(context, node, len(context.shape(x)))
    return ops.Reduce(function, axes, integer(node, "keepdims", 1) == 1)


def _axes(context: Context, node: onnx.NodeProto, rank: int) -> tuple[int, ...]:
    since = SUM_AXES_ARE_INPUT if node.op_type == "ReduceSum" else AXES_ARE_INPUT
    given = integer_list(node, "axes") if context.opset < since else context.integers(node, 1)
    if not given:
        everything = not integer(node, "noop_with_empty_axes", 0)
        return tuple(range(rank)) if everything else ()
    return tuple(sorted({axis_of(axis, rank) for axis in given}))


def global_pool(function: str) -> Builder:
    """A builder for a reduction over all spatial axes."""

    def build(context: Context, node: onnx.NodeProto) -> None:
        x = context.real(node, 0)
        axes = tuple(range(2, len(context.shape(x))))
        context.layer(node, ops.Reduce(function, axes, True), (x,))

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
    op = ops.MaxPool(window.kernel, window.stride, window.begin, window.end, window.dilation, ceil)
    context.layer(node, op, (x,))


def average_pool(context: Context, node: onnx.NodeProto) -> None:
    """AveragePool; padding counts in the divisor only where the node says so."""
    x, window, ceil = _window(context, node)
    op = ops.AveragePool(
        window.kernel,
        window.stride,
        window.begin,
        window.end,
        window.dilation,
        integer(node, "count_include_pad", 0) != 0,
        ceil,
    )
    context.layer(node, op, (x,))


def lp_pool(context: Context, node: onnx.NodeProto) -> None:
    """LpPool."""
    x, window, ceil = _window(context, node)
    p = integer(node, "p", 2)
    if p < 1:
        raise NotUnderstoodError("its p is below 1")
    op = ops.LpPool(
        window.kernel,
        window.stride,
        window.begin,
        window.end,
        window.dilation,
        float(p),
        ceil,
    )
    context.layer(node, op, (x,))


def _window(context: Context, node: onnx.NodeProto) -> tuple[str, Window, bool]:
    x = context.real(node, 0)
    sizes = context.shape(x)[2:]
    kernel = integer_list(node, "kernel_shape")
    if kernel is None or not sizes:
        raise NotUnderstoodError("it has no kernel_shape, or its input no spatial axes")
    window = read_window(node, sizes, kernel)
    ceil = integer(node, "ceil_mode", 0) != 0
    found, floor = context.shape(node.output[0])[2:], window.positions(sizes)
    # How far to round up is the file's to say: tools disagree on a window in the padding alone.
    if found != floor and not (ceil and found == tuple(map(max, zip(found, floor, strict=True)))):
        raise NotUnderstoodError("its output's shape contradicts its attributes")
    if ceil and any(size > least + 1 for size, least in zip(found, floor, strict=True)):
        raise NotUnderstoodError("its output's shape contradicts its attributes")
    return x, window, ceil


BUILDERS: Mapping[str, Builder] = {
    "AveragePool": average_pool,
    "GlobalAveragePool": global_pool("mean"),
    "GlobalLpPool": global_lp_pool,
    "GlobalMaxPool": global_pool("max"),
    "LpPool": lp_pool,
    "MaxPool": max_pool,
    "ReduceL1": reduction("l1"),
    "ReduceL2": reduction("l2"),
    "ReduceLogSum": log_of_sum,
    "ReduceLogSumExp": reduction("log_sum_exp"),
    "ReduceMax": reduction("max"),
    "ReduceMean": reduction("mean"),
    "ReduceMin": reduction("min"),
    "ReduceProd": reduction("prod"),
    "ReduceSum": reduction("sum"),
    "ReduceSumSquare": sum_of_squares,
}
