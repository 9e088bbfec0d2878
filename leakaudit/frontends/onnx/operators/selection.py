"""What selects elements or puts others around them: slices, indices, padding, stored masks."""

from __future__ import annotations

import math

import numpy as np
import onnx

from leakaudit import operators as ops
from leakaudit.frontends.build import (
    NotUnderstoodError,
    axis_of,
    indices_within,
    selected,
    whole_side,
)
from leakaudit.frontends.onnx.context import Builders, Context
from leakaudit.frontends.onnx.node import integer, integer_list, real, text
from leakaudit.frontends.onnx.operators.embedding import embedding


def slice_axes(context: Context, node: onnx.NodeProto) -> None:
    """Slice; attributes before opset 10, constant inputs from then on."""
    x = context.activation(node, 0)
    shape = context.shape(x)
    steps = None
    if context.opset < 10:
        begins, ends = integer_list(node, "starts"), integer_list(node, "ends")
        axes = integer_list(node, "axes")
    else:
        begins, ends = context.integers(node, 1), context.integers(node, 2)
        axes, steps = context.integers(node, 3), context.integers(node, 4)
    if begins is None or ends is None:
        raise NotUnderstoodError("its starts or ends are missing")
    axes = tuple(range(len(begins))) if axes is None else axes
    steps = (1,) * len(begins) if steps is None else steps
    if not len(begins) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise NotUnderstoodError("its starts, ends, axes and steps do not fit each other")
    taken = [(0, size, 1) for size in shape]
    for begin, end, axis, step in zip(begins, ends, axes, steps, strict=True):
        axis = axis_of(axis, len(shape))
        start, stop, step = slice(begin, end, step).indices(shape[axis])
        taken[axis] = (start, stop, step) if len(range(start, stop, step)) else (0, 0, 1)
    op = ops.Slice(*(tuple(part) for part in zip(*taken, strict=True)))
    context.layer(node, op, (x,))


def gather(context: Context, node: onnx.NodeProto) -> None:
    """Gather by a constant index, or rows of a stored table by an index computed at run time."""
    index = context.optional(node, 1)
    data = context.optional(node, 0)
    if context.is_activation(index) and not context.is_activation(data):
        embedding(context, node)
        return
    x = context.activation(node, 0)
    shape = context.shape(x)
    axis = axis_of(integer(node, "axis", 0), len(shape))
    indices = np.array(context.integers(node, 1) or (), np.int64)
    chosen = indices_within(indices, shape[axis])
    context.layer(node, ops.Gather(axis, chosen, context.shape(node.input[1])), (x,))


def pad(context: Context, node: onnx.NodeProto) -> None:
    """Pad; negative padding is a Slice before it."""
    x = context.activation(node, 0)
    shape = context.shape(x)
    mode = text(node, "mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise NotUnderstoodError(f"its mode is {mode!r}")
    begin, end, value = _pads(context, node, len(shape))
    low = tuple(max(-pad, 0) for pad in begin)
    high = tuple(size - max(-pad, 0) for size, pad in zip(shape, end, strict=True))
    added = [tuple(max(pad, 0) for pad in pads) for pads in (begin, end)]
    kept = tuple(stop - start for start, stop in zip(low, high, strict=True))
    if min(kept, default=1) < 0:
        raise NotUnderstoodError("it cuts off more than there is")
    if kept != shape:
        if mode != "constant":
            raise NotUnderstoodError(f"its padding is negative, with the mode {mode!r}")
        op = ops.Slice(low, high, (1,) * len(shape))
        if not any(map(any, added)):
            context.layer(node, op, (x,))
            return
        x = context.step(node, "cut", op, (x,), kept)
    if mode != "constant" and 0 in kept:
        raise NotUnderstoodError("its input is empty")
    context.layer(node, ops.Pad(added[0], added[1], mode, value), (x,))


def _pads(
    context: Context, node: onnx.NodeProto, rank: int
) -> tuple[tuple[int, ...], tuple[int, ...], float]:
    """Padding before and after every axis, and what is padded with."""
    if context.opset < 11:
        pads, value, axes = integer_list(node, "pads"), real(node, "value", 0.0), None
    else:
        pads, number = context.integers(node, 1), context.number(node, 2)
        value, axes = number or 0.0, context.integers(node, 3)
    chosen = tuple(range(rank)) if axes is None else tuple(axis_of(axis, rank) for axis in axes)
    if pads is None or len(pads) != 2 * len(chosen) or len(set(chosen)) != len(chosen):
        raise NotUnderstoodError("its pads do not fit its input")
    if math.isnan(value):
        raise NotUnderstoodError("what it pads with is not a number")
    begin, end = [0] * rank, [0] * rank
    for place, axis in enumerate(chosen):
        begin[axis], end[axis] = pads[place], pads[place + len(chosen)]
    return tuple(begin), tuple(end), value


def where(context: Context, node: onnx.NodeProto) -> None:
    """Where by a constant condition."""
    chosen = context.array(node, 0)
    shape = context.shape(node.output[0])
    if chosen.dtype.kind != "b":
        raise NotUnderstoodError("its condition is not boolean")
    sides = []
    for index, what in ((1, "then"), (2, "else")):
        name = context.optional(node, index) or ""
        if context.is_plain(name):
            # Numbers that hide something (minus infinity hides scores) are not trained.
            sides.append(context.new_constant(node, what, context.array(node, index)))
        else:
            sides.append(context.operand(node, index))
    if np.broadcast_shapes(chosen.shape, *map(context.shape, sides)) != shape:
        raise NotUnderstoodError("its output's shape contradicts its inputs")
    shapes = [context.shape(name) if context.is_activation(name) else None for name in sides]
    whole = whole_side(chosen, shapes, shape)
    if whole is not None:
        context.same(node, sides[whole])
        return
    context.layer(node, ops.Where(selected(chosen, shape)), (context.movable(node, 0), *sides))


BUILDERS: Builders = {
    "Gather": gather,
    "Pad": pad,
    "Slice": slice_axes,
    "Where": where,
}
