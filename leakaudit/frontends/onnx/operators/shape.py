"""Operators that give elements another shape or order, or put tensors together or apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx

from leakaudit import operators as ops
from leakaudit.frontends.build import NotUnderstoodError, axis_of
from leakaudit.frontends.onnx.context import Builders, Context
from leakaudit.frontends.onnx.node import integer, integers, text

MAX_COPIES = 64  # of a Tile, which becomes a Concat with as many inputs


def regrouped(
    context: Context, node: onnx.NodeProto, x: str, what: str = "", shape: Sequence[int] = ()
) -> str:
    """x in the shape of the node's output or, under the name `what`, in another on the way."""
    if what:
        return context.step(node, what, ops.Reshape(), (x,), shape)
    context.layer(node, ops.Reshape(), (x,))
    return str(node.output[0])


def transposed(
    context: Context, node: onnx.NodeProto, what: str, x: str, order: Sequence[int]
) -> str:
    """x with its axes in another order, on the way to the node's output."""
    shape = context.shape(x)
    moved = tuple(shape[axis] for axis in order)
    return context.step(node, what, ops.Transpose(tuple(order)), (x,), moved)


def reshape(context: Context, node: onnx.NodeProto) -> None:
    """Flatten, Reshape, Squeeze and Unsqueeze: the output's shape says it all."""
    x = context.activation(node, 0)
    if math.prod(context.shape(x)) != math.prod(context.shape(node.output[0])):
        raise NotUnderstoodError("its output has not as many elements as its input")
    regrouped(context, node, x)


def transpose(context: Context, node: onnx.NodeProto) -> None:
    """Transpose; without `perm` it reverses the axes."""
    x = context.activation(node, 0)
    rank = len(context.shape(x))
    permutation = integers(node, "perm", tuple(reversed(range(rank))))
    if sorted(permutation) != list(range(rank)):
        raise NotUnderstoodError("its perm is not a permutation of the axes")
    context.layer(node, ops.Transpose(permutation), (x,))


def concat(context: Context, node: onnx.NodeProto) -> None:
    """Concat of activations and parameters."""
    names = [context.movable(node, index) for index in range(len(node.input))]
    axis = axis_of(integer(node, "axis", 1), len(context.shape(names[0])))
    context.layer(node, ops.Concat(axis), names)


def split(context: Context, node: onnx.NodeProto) -> None:
    """Split; the outputs' shapes say where."""
    x = context.activation(node, 0)
    axis = axis_of(integer(node, "axis", 0), len(context.shape(x)))
    if not all(node.output):
        raise NotUnderstoodError("one of its outputs is left out")
    sizes = tuple(context.shape(name)[axis] for name in node.output)
    if sum(sizes) != context.shape(x)[axis]:
        raise NotUnderstoodError("its parts do not add up to its input")
    context.layer(node, ops.Split(axis, sizes), (x,), outputs=len(sizes))


def expand(context: Context, node: onnx.NodeProto) -> None:
    """Expand to a shape that the constants of the file decide."""
    context.layer(node, ops.Expand(), (context.activation(node, 0),))


def tile(context: Context, node: onnx.NodeProto) -> None:
    """Tile: copies one after the other, along one axis after the other."""
    x = context.activation(node, 0)
    repeats = context.integers(node, 1) or ()
    shape = context.shape(x)
    if len(repeats) != len(shape) or min(repeats, default=1) < 1:
        raise NotUnderstoodError("its repeats do not fit its input")
    repeated = [axis for axis, count in enumerate(repeats) if count > 1]
    if not repeated:
        context.same(node, x)
        return
    if all(shape[axis] == 1 for axis in repeated):
        context.layer(node, ops.Expand(), (x,))
        return
    if max(repeats) > MAX_COPIES:
        raise NotUnderstoodError(f"it makes {max(repeats)} copies")
    for axis in repeated[:-1]:
        shape = (*shape[:axis], shape[axis] * repeats[axis], *shape[axis + 1 :])
        x = context.step(node, f"axis{axis}", ops.Concat(axis), (x,) * repeats[axis], shape)
    axis = repeated[-1]
    context.layer(node, ops.Concat(axis), (x,) * repeats[axis])


def blocks(context: Context, node: onnx.NodeProto) -> None:
    """DepthToSpace, where blocks of channels become blocks of pixels, and SpaceToDepth back."""
    x = context.activation(node, 0)
    if len(context.shape(x)) != 4:
        raise NotUnderstoodError(f"its input has {len(context.shape(x))} axes, not 4")
    batch, channels, height, width = context.shape(x)
    block, mode = integer(node, "blocksize", 0), text(node, "mode", "DCR")
    to_depth = node.op_type == "SpaceToDepth"
    divided, parts = ((height, width), block) if to_depth else ((channels,), block * block)
    if block < 1 or any(size % parts for size in divided) or mode not in ("DCR", "CRD"):
        raise NotUnderstoodError("its blocksize or mode does not fit its input")
    depth = channels // (block * block)
    split: tuple[int, ...]
    if to_depth:
        split = (batch, channels, height // block, block, width // block, block)
        order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    elif mode == "DCR":
        split, order = (batch, block, block, depth, height, width), (0, 3, 4, 1, 5, 2)
    else:
        split, order = (batch, depth, block, block, height, width), (0, 1, 4, 2, 5, 3)
    x = regrouped(context, node, x, "split", split)
    regrouped(context, node, transposed(context, node, "order", x, order))


BUILDERS: Builders = {
    "Concat": concat,
    "DepthToSpace": blocks,
    "Expand": expand,
    "Flatten": reshape,
    "Reshape": reshape,
    "SpaceToDepth": blocks,
    "Split": split,
    "Squeeze": reshape,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": reshape,
}
