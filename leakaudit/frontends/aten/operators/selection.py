"""What selects elements or puts others around them: slices, indices, padding, stored masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Call, Layer, by_target, normal_axis, same
from leakaudit.frontends.aten.operators.attention import safe_softmax
from leakaudit.frontends.aten.operators.shape import joined, regrouped, reshaped
from leakaudit.frontends.aten.values import Array, number_of, numpy_dtype
from leakaudit.frontends.build import (
    MAX_INDICES,
    MAX_MASK_ELEMENTS,
    NotUnderstoodError,
    indices_within,
    selected,
    whole_side,
)
from leakaudit.graph import Tensor


def _sliced(source: Tensor, ranges: Mapping[int, range]) -> Layer:
    """The elements of these ranges of axes, and all of every other axis."""
    kept = [ranges.get(axis, range(size)) for axis, size in enumerate(source.shape)]
    op = ops.Slice(
        tuple(one.start for one in kept),
        tuple(one.stop for one in kept),
        tuple(one.step for one in kept),
    )
    return Layer(op, (source.name,))


def gather(source: Tensor, axis: int, index: Array) -> Layer:
    """Elements of one axis by constant indices."""
    chosen = indices_within(index, source.shape[axis])
    return Layer(ops.Gather(axis, chosen, index.shape), (source.name,))


def part(call: Call, source: Tensor, axis: int, kept: range) -> Tensor:
    """A range of one axis, before the call's own node."""
    shape = (*source.shape[:axis], len(kept), *source.shape[axis + 1 :])
    return call.computed(_sliced(source, {axis: kept}), shape)


def _index_select(call: Call) -> Layer:
    source = call.operand("self")
    axis = call.axis("dim", len(source.shape))
    index = call.numbers("index")
    if not source.shape:
        raise NotUnderstoodError("its input is a single number")
    return gather(source, axis, index.reshape(-1))


def _index(call: Call) -> Layer:
    """x[.., i, j, ..] with constant index arrays on neighbouring axes."""
    source = call.operand("self")
    places = {
        axis: call.numbers_of(value, "indices")
        for axis, value in enumerate(call.members("indices"))
        if value is not None
    }
    if any(index.dtype.kind not in "iu" for index in places.values()):
        raise NotUnderstoodError("its indices are not integers")
    axes = list(places)
    if not axes or axes[-1] >= len(source.shape):
        raise NotUnderstoodError("its indices do not fit its input")
    if axes != list(range(axes[0], axes[0] + len(axes))):
        raise NotUnderstoodError("its indices are on axes apart from each other")
    if len(axes) == 1:
        return gather(source, axes[0], places[axes[0]])
    sizes = source.shape[axes[0] : axes[-1] + 1]
    if math.prod(np.broadcast_shapes(*(index.shape for index in places.values()))) > MAX_INDICES:
        raise NotUnderstoodError("its indices are too many")
    indices = np.broadcast_arrays(*places.values())
    wrapped = [
        np.reshape(indices_within(index, size), index.shape).astype(np.int64)
        for size, index in zip(sizes, indices, strict=True)
    ]
    merged = (*source.shape[: axes[0]], math.prod(sizes), *source.shape[axes[-1] + 1 :])
    flat = reshaped(call, source, merged)
    return gather(flat, axes[0], np.ravel_multi_index(tuple(wrapped), sizes))


_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _pad(call: Call, mode: str | None) -> Layer:
    """Padding in torch's order, last axis first; a negative amount cuts."""
    source = call.operand("self")
    amounts = call.integers("padding" if "padding" in call.arguments else "pad", ())
    named = call.arguments.get("mode", "constant") if mode is None else mode
    if not isinstance(named, str) or named not in _MODES:
        raise NotUnderstoodError("its mode is not known")
    if len(amounts) % 2 or len(amounts) > 2 * len(source.shape):
        raise NotUnderstoodError("its padding does not fit its input")
    whole = (0,) * (len(source.shape) - len(amounts) // 2)
    begin, end = (*whole, *amounts[-2::-2]), (*whole, *amounts[::-2])
    if min((*begin, *end), default=0) < 0:
        source = _cut(call, source, begin, end)
        begin, end = (tuple(max(size, 0) for size in sizes) for sizes in (begin, end))
    value = call.optional_number("value", 0.0)
    if not any((*begin, *end)):
        return same(source)
    return Layer(ops.Pad(begin, end, _MODES[named], value), (source.name,))


def _cut(call: Call, source: Tensor, begin: tuple[int, ...], end: tuple[int, ...]) -> Tensor:
    kept = [
        range(max(-first, 0), size - max(-last, 0))
        for first, size, last in zip(begin, source.shape, end, strict=True)
    ]
    if any(one.stop < one.start for one in kept):
        raise NotUnderstoodError("its padding cuts more than there is")
    return call.computed(_sliced(source, dict(enumerate(kept))), tuple(map(len, kept)))


def _roll(call: Call) -> Layer:
    source, shifts = call.operand("self"), call.integers("shifts", ())
    dims = call.integers("dims", ())
    shape = source.shape
    if not dims:
        source = reshaped(call, source, (math.prod(shape),))
        dims = (0,)
    if len(shifts) != len(dims) or not shape:
        raise NotUnderstoodError("its shifts do not fit its axes")
    for shift, dim in zip(shifts, dims, strict=True):
        axis = normal_axis(dim, len(source.shape))
        size = source.shape[axis]
        cut = -shift % size if size else 0
        if cut:
            parts = [part(call, source, axis, kept) for kept in (range(cut, size), range(cut))]
            source = call.computed(joined(parts, axis), source.shape)
    return same(source) if source.shape == shape else regrouped(source)


def _flip(call: Call) -> Layer:
    source = call.operand("self")
    flipped: dict[int, range] = {}
    for dim in call.integers("dims", ()):
        axis = normal_axis(dim, len(source.shape))
        if not source.shape or not source.shape[axis]:
            raise NotUnderstoodError("it flips nothing")
        flipped[axis] = range(source.shape[axis] - 1, -1, -1)
    return _sliced(source, flipped)


def _unbind(call: Call) -> tuple[Layer, ...]:
    source = call.operand("self")
    axis = call.axis("dim", len(source.shape))
    if source.shape[axis : axis + 1] != (len(call.outputs),):
        raise NotUnderstoodError(f"it has {len(call.outputs)} outputs")
    return tuple(
        Layer(ops.Gather(axis, (index,), ()), (source.name,), outputs=(output,))
        for index, output in enumerate(call.outputs)
    )


def _slice(call: Call) -> Layer:
    source = call.operand("self")
    axis = call.axis("dim", len(source.shape))
    bounds = call.bounds()
    if bounds.step < 1 or not source.shape:
        raise NotUnderstoodError("its step is below 1, or its input a single number")
    kept = range(*bounds.indices(source.shape[axis]))
    if kept == range(source.shape[axis]):
        return same(source)
    return _sliced(source, {axis: range(kept.start, max(kept.stop, kept.start), kept.step)})


def _slice_scatter(call: Call) -> Layer:
    """A copy of the first argument in which a range of one axis is that of `src`."""
    source, new = call.operand("self"), call.operand("src")
    axis = call.axis("dim", len(source.shape))
    bounds = call.bounds()
    if bounds.step != 1 or not source.shape:
        raise NotUnderstoodError("its step is not 1, or its input a single number")
    size = source.shape[axis]
    kept = range(*bounds.indices(size))
    return _with_range(call, source, axis, range(kept.start, max(kept.stop, kept.start)), new)


def _select_scatter(call: Call) -> Layer:
    source, new = call.operand("self"), call.operand("src")
    axis, index = _axis_and_index(call, source)
    row = reshaped(call, new, (*source.shape[:axis], 1, *source.shape[axis + 1 :]))
    return _with_range(call, source, axis, range(index, index + 1), row)


def _with_range(call: Call, source: Tensor, axis: int, changed: range, new: Tensor) -> Layer:
    beside = (range(changed.start), range(changed.stop, source.shape[axis]))
    before, after = ([part(call, source, axis, kept)] if kept else [] for kept in beside)
    return joined([*before, new, *after], axis) if before or after else same(new)


def _narrow(call: Call) -> Layer:
    source = call.operand("self")
    axis = call.axis("dim", len(source.shape))
    start, length = call.integer("start", 0), call.integer("length", 0)
    size = (source.shape or (1,))[axis]
    start += size if start < 0 else 0
    if not (source.shape and 0 <= start <= start + length <= size):
        raise NotUnderstoodError("its range does not fit its input")
    return _sliced(source, {axis: range(start, start + length)})


def _select(call: Call) -> Layer:
    source = call.operand("self")
    axis, index = _axis_and_index(call, source)
    return Layer(ops.Gather(axis, (index,), ()), (source.name,))


def _axis_and_index(call: Call, source: Tensor) -> tuple[int, int]:
    """The arguments `dim` and `index`, both counted from the front."""
    axis = call.axis("dim", len(source.shape))
    index = call.integer("index", 0)
    size = (source.shape or (0,))[axis]
    index += size if index < 0 else 0
    if not 0 <= index < size:
        raise NotUnderstoodError("its index lies outside its input")
    return axis, index


def _mask(call: Call, name: str) -> Array:
    found = call.numbers(name)
    if found.dtype != np.bool_:
        raise NotUnderstoodError(f"its {name} is not boolean")
    return found


def _masked_fill(call: Call) -> Layer:
    value = call.arguments.get("value")
    number = number_of(value)
    filling = np.asarray(number) if number is not None else call.numbers_of(value, "value")
    return _choose(call, ~_mask(call, "mask"), call.operand("self"), filling)


def _triangle(call: Call, keep: Callable[..., Array]) -> Layer:
    """tril and triu of data: 0 beside a diagonal."""
    source = call.operand("self")
    if len(source.shape) < 2 or math.prod(source.shape[-2:]) > MAX_MASK_ELEMENTS:
        raise NotUnderstoodError("its input is not a matrix, or too large")
    kept = keep(np.ones(source.shape[-2:], np.bool_), call.integer("diagonal", 0))
    return _choose(call, kept, source, np.zeros(()))


def _where(call: Call) -> Layer:
    if isinstance(call.arguments.get("condition"), Tensor):
        softmax = safe_softmax(call)
        if softmax is not None:
            return softmax
    condition = _mask(call, "condition")
    parts: list[Tensor | Array] = []
    for name in ("self", "other"):
        value = call.arguments.get(name)
        known = call.numbers_or_none(name)
        numbers = number_of(value) if known is None else known
        parts.append(call.operand(name) if numbers is None else np.asarray(numbers))
    first, second = parts
    if isinstance(first, Tensor):
        return _choose(call, condition, first, second)
    if isinstance(second, Tensor):
        return _choose(call, ~condition, second, first)
    raise NotUnderstoodError("it chooses between constants too large to compute")


def _choose(call: Call, kept: Array, x: Tensor, other: Tensor | Array) -> Layer:
    """x where `kept`, else `other`; the whole of one of them is that one itself."""
    dtype, shape = numpy_dtype(call.floating()), call.output.shape
    rest = other if isinstance(other, Tensor) else None
    whole = whole_side(kept, (x.shape, None if rest is None else rest.shape), shape)
    if whole == 0:
        return same(x)
    if rest is None:
        rest = call.sink.constant(np.asarray(other, dtype)).operand
    elif whole == 1:
        return same(rest)
    condition = call.sink.constant(kept).operand.name
    return Layer(ops.Where(selected(kept, shape)), (condition, x.name, rest.name))


BUILDERS = by_target(
    {
        "unbind.int": _unbind,
        "slice.Tensor": _slice,
        "slice_scatter": _slice_scatter,
        "select_scatter": _select_scatter,
        "narrow": _narrow,
        "select.int": _select,
        "index_select": _index_select,
        "index.Tensor": _index,
        "pad": partial(_pad, mode=None),
        "constant_pad_nd": partial(_pad, mode="constant"),
        **{f"reflection_pad{d}d": partial(_pad, mode="reflect") for d in (1, 2, 3)},
        **{f"replication_pad{d}d": partial(_pad, mode="replicate") for d in (1, 2, 3)},
        "_pad_circular": partial(_pad, mode="circular"),
        "roll": _roll,
        "flip": _flip,
        "tril": partial(_triangle, keep=np.tril),
        "triu": partial(_triangle, keep=np.triu),
        "masked_fill.Scalar masked_fill.Tensor": _masked_fill,
        "where.self where.ScalarSelf where.ScalarOther where.Scalar": _where,
    }
)
