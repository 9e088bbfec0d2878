"""Reductions over axes."""

from __future__ import annotations

import onnx

from leakaudit import operators as ops
from leakaudit.frontends.build import axis_of
from leakaudit.frontends.onnx.context import Builder, Builders, Context
from leakaudit.frontends.onnx.node import integer, integer_list
from leakaudit.frontends.onnx.operators.activation import element

# From these versions on the axes are an input; ReduceSum took the step earlier than the others.
AXES_ARE_INPUT = 18
SUM_AXES_ARE_INPUT = 13


def over(function: str, axes: tuple[int, ...]) -> ops.Operator:
    """A reduction that keeps its axes."""
    return ops.Reduce(function, axes, True)


def reduction(function: str) -> Builder:
    """A builder for a reduction."""

    def build(context: Context, node: onnx.NodeProto) -> None:
        x = context.real(node, 0)
        context.layer(node, _reduce(context, node, function, x), (x,))

    return build


def _sum_of_squares(context: Context, node: onnx.NodeProto) -> None:
    x = context.real(node, 0)
    op = _reduce(context, node, "sum", x)
    x = context.step(node, "square", element("square"), (x,), context.shape(x))
    context.layer(node, op, (x,))


def _log_of_sum(context: Context, node: onnx.NodeProto) -> None:
    x = context.real(node, 0)
    op = _reduce(context, node, "sum", x)
    x = context.step(node, "sum", op, (x,), context.shape(node.output[0]))
    context.layer(node, element("log"), (x,))


def _reduce(context: Context, node: onnx.NodeProto, function: str, x: str) -> ops.Reduce:
    rank = len(context.shape(x))
    since = SUM_AXES_ARE_INPUT if node.op_type == "ReduceSum" else AXES_ARE_INPUT
    given = integer_list(node, "axes") if context.opset < since else context.integers(node, 1)
    if given:
        axes = tuple(sorted({axis_of(axis, rank) for axis in given}))
    else:
        axes = () if integer(node, "noop_with_empty_axes", 0) else tuple(range(rank))
    return ops.Reduce(function, axes, integer(node, "keepdims", 1) == 1)


BUILDERS: Builders = {
    "ReduceL1": reduction("l1"),
    "ReduceL2": reduction("l2"),
    "ReduceLogSum": _log_of_sum,
    "ReduceLogSumExp": reduction("log_sum_exp"),
    "ReduceMax": reduction("max"),
    "ReduceMean": reduction("mean"),
    "ReduceMin": reduction("min"),
    "ReduceProd": reduction("prod"),
    "ReduceSum": reduction("sum"),
    "ReduceSumSquare": _sum_of_squares,
}
