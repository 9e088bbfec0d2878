"""The ONNX operators that leakaudit understands: one builder each, and the table of them.

A builder takes the context and a node of the file and returns nodes of our graph. Where the node is
more than it understands it raises `NotUnderstoodError`, and the node becomes `Unsupported`. It asks
every question before it makes a node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import onnx

from leakaudit.frontends.onnx_context import Context, reshaped
from leakaudit.frontends.onnx_file import is_default
from leakaudit.frontends.onnx_node import NotUnderstoodError, integer, integers, real, text
from leakaudit.graph import Node, Parameter
from leakaudit.graph import operators as ops

Builder = Callable[[Context, onnx.NodeProto], tuple[Node, ...]]


def conv(context: Context, node: onnx.NodeProto) -> tuple[Node, ...]:
    """Conv over 1 to 3 axes, with every way to state its padding."""
    x = context.activation(node, 0)
    weight = context.weight(context.optional(node, 1))
    sizes = context.shape(x)[2:]
    kernel = weight.shape[2:]
    axes = len(kernel)
    groups = integer(node, "group", 1)
    if not 1 <= axes <= 3 or len(sizes) != axes:
        raise NotUnderstoodError(f"it is a convolution over {axes} axes")
    if integers(node, "kernel_shape", kernel) != kernel:
        raise NotUnderstoodError("its kernel_shape contradicts its weight")
    if groups < 1 or weight.shape[1] * groups != context.shape(x)[1] or weight.shape[0] % groups:
        raise NotUnderstoodError("its weight does not fit its input's channels and groups")
    stride = integers(node, "strides", (1,) * axes)
    dilation = integers(node, "dilations", (1,) * axes)
    if min(stride) < 1 or min(dilation) < 1 or min(kernel) < 1:
        raise NotUnderstoodError("its kernel, stride or dilation is below 1")
    begin, end = _padding(node, sizes, kernel, stride, dilation)
    op = ops.Conv(kernel, stride, begin, end, dilation, groups)
    expected = tuple(
        (size + before + after - step * (taps - 1) - 1) // move + 1
        for size, before, after, step, taps, move in zip(
            sizes, begin, end, dilation, kernel, stride, strict=True
        )
    )
    if context.shape(node.output[0]) != (context.shape(x)[0], weight.shape[0], *expected):
        raise NotUnderstoodError("its output's shape contradicts its attributes")
    bias = _bias(context, context.optional(node, 2), weight.shape[0])
    return context.layer(node, op, (x,), (("weight", weight), *bias))


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
        pads = integers(node, "pads", (0,) * (2 * axes))
        if min(pads) < 0:
            raise NotUnderstoodError("its padding is negative")
        return pads[:axes], pads[axes:]
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise NotUnderstoodError(f"its auto_pad is {mode!r}")
    total = tuple(
        max((math.ceil(size / move) - 1) * move + step * (taps - 1) + 1 - size, 0)
        for size, taps, move, step in zip(sizes, kernel, stride, dilation, strict=True)
    )
    smaller = tuple(pad // 2 for pad in total)
    larger = tuple(pad - half for pad, half in zip(total, smaller, strict=True))
    return (smaller, larger) if mode == "SAME_UPPER" else (larger, smaller)


def _bias(
    context: Context, name: str | None, out_features: int
) -> tuple[tuple[str, Parameter], ...]:
    """The bias as a vector of one number per output, or nothing where there is none."""
    if name is None:
        return ()
    bias = context.weight(name, "bias")
    if bias.shape[-1:] != (out_features,) or math.prod(bias.shape) != out_features:
        raise NotUnderstoodError(f"its bias does not have one value for each of {out_features}")
    return (("bias", reshaped(bias, (out_features,))),)


def gemm(context: Context, node: onnx.NodeProto) -> tuple[Node, ...]:
    """Gemm with stored B and C: a dense layer."""
    x = context.activation(node, 0)
    if integer(node, "transA", 0) != 0:
        raise NotUnderstoodError("it transposes its first input (transA)")
    weight = context.weight(context.optional(node, 1))
    transposed = integer(node, "transB", 0) == 0
    op = _linear(context, x, weight, transposed)
    op = ops.Linear(
        op.in_features,
        op.out_features,
        transposed,
        real(node, "alpha", 1.0),
        real(node, "beta", 1.0),
    )
    bias = _bias(context, context.optional(node, 2), op.out_features)
    return context.layer(node, op, (x,), (("weight", weight), *bias))


def matmul(context: Context, node: onnx.NodeProto) -> tuple[Node, ...]:
    """MatMul with a stored matrix, together with the Add of a stored vector that follows it."""
    x = context.activation(node, 0)
    weight = context.weight(context.optional(node, 1))
    op = _linear(context, x, weight, transposed=True)
    follower = context.only_reader(node.output[0])
    bias = () if follower is None else _added_bias(context, node, follower[1], op.out_features)
    if follower is None or not bias:
        return context.layer(node, op, (x,), (("weight", weight),))
    index, add = follower
    nodes = context.layer(
        node,
        op,
        (x,),
        (("weight", weight), *bias),
        output=add.output[0],
        origin="MatMul+Add",
    )
    context.absorbed.add(index)
    return nodes


def _added_bias(
    context: Context, product: onnx.NodeProto, add: onnx.NodeProto, out_features: int
) -> tuple[tuple[str, Parameter], ...]:
    """The stored vector that `add` adds to a product, or nothing where it adds something else."""
    if add.op_type != "Add" or not is_default(add.domain) or len(add.output) != 1:
        return ()
    others = [name for name in add.input if name != product.output[0]]
    if len(others) != 1 or not context.is_stored(others[0]):
        return ()
    if context.shape(add.output[0]) != context.shape(product.output[0]):
        return ()
    try:
        return _bias(context, others[0], out_features)
    except NotUnderstoodError:
        return ()


def _linear(context: Context, x: str, weight: Parameter, transposed: bool) -> ops.Linear:
    if len(weight.shape) != 2:
        raise NotUnderstoodError(f"its weight has {len(weight.shape)} axes, not 2")
    if len(context.shape(x)) < 2:
        raise NotUnderstoodError("its input has no batch axis")
    features = weight.shape if transposed else weight.shape[::-1]
    if context.shape(x)[-1] != features[0]:
        raise NotUnderstoodError("its weight does not fit its input")
    return ops.Linear(features[0], features[1], transposed)


def prelu(context: Context, node: onnx.NodeProto) -> tuple[Node, ...]:
    """PRelu with one slope, or one per channel (axis 1)."""
    x = context.activation(node, 0)
    slope = context.weight(context.optional(node, 1), "slope")
    count = math.prod(slope.shape)
    rank = len(context.shape(x))
    # The slope is broadcast from the last axis, so (C, 1, 1) stands on axis 1 of (B, C, H, W).
    aligned = (1,) * (rank - len(slope.shape)) + slope.shape
    if count != 1 and (rank < 2 or aligned[1:2] != (count,)):
        raise NotUnderstoodError("its slopes are neither one nor one per channel")
    return context.layer(node, ops.PRelu(), (x,), (("slope", reshaped(slope, (count,))),))


def dropout(context: Context, node: onnx.NodeProto) -> tuple[Node, ...]:
    """Dropout passes its input on, unless the file switches training on."""
    training = context.optional(node, 2)
    if training is not None and context.flag(training) is not False:
        raise NotUnderstoodError("it drops elements (training_mode): export the model in eval mode")
    return context.layer(node, ops.Identity(), (context.activation(node, 0),))


def reshape(context: Context, node: onnx.NodeProto) -> tuple[Node, ...]:
    """Flatten, Reshape, Squeeze and Unsqueeze: the output's shape says it all."""
    x = context.activation(node, 0)
    if math.prod(context.shape(x)) != math.prod(context.shape(node.output[0])):
        raise NotUnderstoodError("its output has not as many elements as its input")
    return context.layer(node, ops.Reshape(), (x,))


def transpose(context: Context, node: onnx.NodeProto) -> tuple[Node, ...]:
    """Transpose; without `perm` it reverses the axes."""
    x = context.activation(node, 0)
    rank = len(context.shape(x))
    permutation = integers(node, "perm", tuple(reversed(range(rank))))
    if sorted(permutation) != list(range(rank)):
        raise NotUnderstoodError("its perm is not a permutation of the axes")
    return context.layer(node, ops.Transpose(permutation), (x,))


def plain(op: ops.Activation) -> Builder:
    """A builder for an elementwise function without attributes."""

    def build(context: Context, node: onnx.NodeProto) -> tuple[Node, ...]:
        return context.layer(node, op, (context.activation(node, 0),))

    return build


def leaky_relu(context: Context, node: onnx.NodeProto) -> tuple[Node, ...]:
    """LeakyRelu; ONNX's default slope is 0.01."""
    op = ops.LeakyRelu(real(node, "alpha", 0.01))
    return context.layer(node, op, (context.activation(node, 0),))


def elu(context: Context, node: onnx.NodeProto) -> tuple[Node, ...]:
    """Elu; ONNX's default alpha is 1."""
    op = ops.Elu(real(node, "alpha", 1.0))
    return context.layer(node, op, (context.activation(node, 0),))


OPERATORS: Mapping[str, Builder] = {
    "Atan": plain(ops.ArcTan()),
    "Conv": conv,
    "Dropout": dropout,
    "Elu": elu,
    "Flatten": reshape,
    "Gemm": gemm,
    "Identity": plain(ops.Identity()),
    "LeakyRelu": leaky_relu,
    "MatMul": matmul,
    "PRelu": prelu,
    "Relu": plain(ops.Relu()),
    "Reshape": reshape,
    "Sigmoid": plain(ops.Sigmoid()),
    "Softplus": plain(ops.Softplus()),
    "Squeeze": reshape,
    "Tanh": plain(ops.Tanh()),
    "Transpose": transpose,
    "Unsqueeze": reshape,
}

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
QUANTISED = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)
