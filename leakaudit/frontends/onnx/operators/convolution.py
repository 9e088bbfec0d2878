"""Convolutions and their adjoints."""

from __future__ import annotations

import onnx

from leakaudit import operators as ops
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.frontends.onnx.context import Builders, Context
from leakaudit.frontends.onnx.node import integer, integer_list, integers, text
from leakaudit.frontends.onnx.operators.dense import bias_of
from leakaudit.frontends.onnx.windows import Sizes, explicit_padding, halves, read_window, strides
from leakaudit.graph import Parameter


def conv(context: Context, node: onnx.NodeProto) -> None:
    """Conv over 1 to 3 axes, with every way to state its padding."""
    x, weight, groups = _read(context, node, adjoint=False)
    window = read_window(node, context.shape(x)[2:], weight.shape[2:])
    _layer(context, node, ops.Conv(*window, groups), x, weight)


def conv_transpose(context: Context, node: onnx.NodeProto) -> None:
    """ConvTranspose; `output_padding` and `output_shape` become what is cut off at the ends."""
    x, weight, groups = _read(context, node, adjoint=True)
    sizes, kernel = context.shape(x)[2:], weight.shape[2:]
    stride, dilation = strides(node, kernel)
    full = tuple(
        (size - 1) * move + step * (taps - 1) + 1
        for size, move, step, taps in zip(sizes, stride, dilation, kernel, strict=True)
    )
    begin, end = _cut(node, sizes, stride, full)
    op = ops.ConvTranspose(kernel, stride, begin, end, dilation, groups)
    _layer(context, node, op, x, weight)


def _read(context: Context, node: onnx.NodeProto, *, adjoint: bool) -> tuple[str, Parameter, int]:
    """Input, weight and groups."""
    x = context.real(node, 0)
    weight = context.weight(context.optional(node, 1))
    kernel = weight.shape[2:]
    if not 1 <= len(kernel) <= 3 or len(context.shape(x)[2:]) != len(kernel):
        raise NotUnderstoodError(f"it is a convolution over {len(kernel)} axes")
    if integers(node, "kernel_shape", kernel) != kernel:
        raise NotUnderstoodError("its kernel_shape contradicts its weight")
    groups = integer(node, "group", 1)
    channels = weight.shape[0] if adjoint else weight.shape[1] * groups
    if groups < 1 or channels != context.shape(x)[1] or weight.shape[0] % groups:
        raise NotUnderstoodError("its weight does not fit its input's channels and groups")
    return x, weight, groups


def _layer(
    context: Context, node: onnx.NodeProto, op: ops.Operator, x: str, weight: Parameter
) -> None:
    (shape,) = op.output_shapes([context.shape(x)], {"weight": weight.shape}, ())
    if context.shape(node.output[0]) != shape:
        raise NotUnderstoodError("its output's shape contradicts its attributes")
    bias = bias_of(context, context.optional(node, 2), shape[1])
    context.layer(node, op, (x,), (("weight", weight), *bias))


def _cut(node: onnx.NodeProto, sizes: Sizes, stride: Sizes, full: Sizes) -> tuple[Sizes, Sizes]:
    """What is cut off the full output before and after each axis."""
    axes = len(sizes)
    more = integers(node, "output_padding", (0,) * axes)
    mode = text(node, "auto_pad", "NOTSET")
    wanted = integer_list(node, "output_shape")
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(size * move for size, move in zip(sizes, stride, strict=True))
    if wanted is None:
        begin, end = explicit_padding(node, axes, "NOTSET" if mode == "NOTSET" else "VALID")
    else:
        if len(wanted) != axes:
            raise NotUnderstoodError("its output_shape does not fit its input")
        totals = tuple(f + m - w for f, m, w in zip(full, more, wanted, strict=True))
        if min(totals) < 0:
            raise NotUnderstoodError("its output_shape is larger than its output")
        begin, end = halves(totals, larger_first=mode != "SAME_UPPER")
    return begin, tuple(e - m for e, m in zip(end, more, strict=True))


BUILDERS: Builders = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
}
