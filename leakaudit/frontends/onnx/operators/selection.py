"""Operators that choose elements or put new ones around them: Slice, Split, Gather, Pad."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

from leakaudit import operators as ops
from leakaudit.frontends.onnx.constants import FLOATS
from leakaudit.frontends.onnx.context import Builder, Context
from leakaudit.frontends.onnx.node import (
    NotUnderstoodError,
    integer,
    integer_list,
    real,
    text,
)
from leakaudit.frontends.onnx.operators.shape import axis_of


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


def gather(context: Context, node: onnx.NodeProto) -> None:
    """Gather by a constant index, or rows of a stored table by an index computed at run time."""
    index = context.optional(node, 1)
    data = context.optional(node, 0)
    if context.is_activation(index) and not context.is_activation(data):
        _embedding(context, node)
        return
    x = context.activation(node, 0)
    shape = context.shape(x)
    axis = axis_of(integer(node, "axis", 0), len(shape))
    indices = context.integers(node, 1) or ()
    if any(not -shape[axis] <= entry < shape[axis] for entry in indices):
        raise NotUnderstoodError("one of its indices lies outside its input")
    chosen = tuple(entry % shape[axis] for entry in indices)
    context.layer(node, ops.Gather(axis, chosen, context.shape(node.input[1])), (x,))


def _embedding(context: Context, node: onnx.NodeProto) -> None:
    table = context.weight(context.optional(node, 0), "table")
    index = context.activation(node, 1)
    if len(table.shape) != 2 or axis_of(integer(node, "axis", 0), 2) != 0:
        raise NotUnderstoodError("it reads other things than rows of a matrix")
    if context.dtype(index) in FLOATS | {"bool"}:
        raise NotUnderstoodError("its index is not of integers")
    context.layer(node, ops.Embedding(), (index,), (("weight", table),))


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


BUILDERS: Mapping[str, Builder] = {
    "Gather": gather,
    "Pad": pad,
    "Slice": slice_axes,
    "Split": split,
}
