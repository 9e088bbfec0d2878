"""Operators that move elements: indexing, padding, rolling, flipping, shuffling pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from leakaudit.frontends.aten.call import Call, Layer, normal_axis
from leakaudit.frontends.aten.operators.shape import one_axis
from leakaudit.frontends.aten.values import Array, NotUnderstoodError
from leakaudit.graph import Tensor
from leakaudit.operators import Concat, Gather, Identity, Pad, Reshape, Slice, Transpose

Builder = Callable[[Call], Layer]

_MAX_INDICES = 2**20


def _gather(source: Tensor, axis: int, index: Array) -> Layer:
    size = source.shape[axis]
    if index.size > _MAX_INDICES:
        raise NotUnderstoodError("its indices are too many")
    found = np.where(index < 0, index + size, index).astype(np.int64)
    if found.size and (found.min() < 0 or found.max() >= size):
        raise NotUnderstoodError("its indices lie outside its input")
    return Layer(Gather(axis, tuple(found.ravel().tolist()), index.shape), (source.name,))


def _index_select(call: Call) -> Layer:
    source = call.operand("self")
    axis = normal_axis(call.integer("dim", 0), len(source.shape))
    index = call.numbers("index")
    if not source.shape:
        raise NotUnderstoodError("its input is a single number")
    return _gather(source, axis, index.reshape(-1))


def _index(call: Call) -> Layer:
    """x[.., i, j, ..] with constant index arrays on neighbouring axes."""
    source = call.operand("self")
    places: list[tuple[int, Array]] = []
    axis = 0
    for value in call.members("indices"):
        if value is None:
            axis += 1
            continue
        index = call.numbers_of(value, "indices")
        if index.dtype.kind not in "iu":
            raise NotUnderstoodError("its indices are not integers")
        places.append((axis, index))
        axis += 1
    axes = [axis for axis, _ in places]
    if not axes or axes[-1] >= len(source.shape):
        raise NotUnderstoodError("its indices do not fit its input")
    if axes != list(range(axes[0], axes[0] + len(axes))):
        raise NotUnderstoodError("its indices are on axes apart from each other")
    if len(axes) == 1:
        return _gather(source, axes[0], places[0][1])
    sizes = source.shape[axes[0] : axes[-1] + 1]
    if math.prod(np.broadcast_shapes(*(index.shape for _, index in places))) > _MAX_INDICES:
        raise NotUnderstoodError("its indices are too many")
    indices = np.broadcast_arrays(*(index for _, index in places))
    wrapped = []
    for size, index in zip(sizes, indices, strict=True):
        if index.size and not (-size <= index.min() and index.max() < size):
            raise NotUnderstoodError("its indices lie outside its input")
        wrapped.append(np.where(index < 0, index + size, index))
    merged = (*source.shape[: axes[0]], math.prod(sizes), *source.shape[axes[-1] + 1 :])
    flat = call.emit(Reshape(), (source,), merged)
    return _gather(flat, axes[0], np.ravel_multi_index(tuple(wrapped), sizes))


def _as_strided(call: Call) -> Layer:
    """A view that only restates the layout of memory is a reshape."""
    source = call.operand("self")
    dense = call.sink.is_row_major(source.name) and call.sink.is_row_major(call.output.name)
    if not dense or call.arguments.get("storage_offset") not in (None, 0):
        raise NotUnderstoodError("it reads memory out of order")
    return Layer(Reshape(), (source.name,))


# --- padding ------------------------------------------------------------------------------------

_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _pad(mode: str | None) -> Builder:
    """Padding in torch's order, last axis first; a negative amount cuts."""

    def builder(call: Call) -> Layer:
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
            return Layer(Identity(), (source.name,))
        return Layer(Pad(begin, end, _MODES[named], value), (source.name,))

    return builder


def _cut(call: Call, source: Tensor, begin: tuple[int, ...], end: tuple[int, ...]) -> Tensor:
    starts = tuple(max(-size, 0) for size in begin)
    stops = tuple(size - max(-last, 0) for size, last in zip(source.shape, end, strict=True))
    shape = tuple(stop - start for start, stop in zip(starts, stops, strict=True))
    if min(shape) < 0:
        raise NotUnderstoodError("its padding cuts more than there is")
    return call.emit(Slice(starts, stops, (1,) * len(shape)), (source,), shape)


# --- rolling and flipping -----------------------------------------------------------------------


def _roll(call: Call) -> Layer:
    source, shifts = call.operand("self"), call.integers("shifts", ())
    dims = call.integers("dims", ())
    shape = source.shape
    if not dims:
        source = call.emit(Reshape(), (source,), (math.prod(shape),))
        dims = (0,)
    if len(shifts) != len(dims) or not shape:
        raise NotUnderstoodError("its shifts do not fit its axes")
    for shift, dim in zip(shifts, dims, strict=True):
        axis = normal_axis(dim, len(source.shape))
        size = source.shape[axis]
        cut = -shift % size if size else 0
        if cut:
            source = _rolled(call, source, axis, cut)
    return Layer(Identity() if source.shape == shape else Reshape(), (source.name,))


def _rolled(call: Call, source: Tensor, axis: int, cut: int) -> Tensor:
    size, shape = source.shape[axis], source.shape
    parts = [
        call.emit(
            one_axis(shape, axis, kept),
            (source,),
            (*shape[:axis], len(kept), *shape[axis + 1 :]),
        )
        for kept in (range(cut, size), range(cut))
    ]
    return call.emit(Concat(axis), tuple(parts), shape)


def _flip(call: Call) -> Layer:
    source = call.operand("self")
    starts, stops, steps = [0] * len(source.shape), list(source.shape), [1] * len(source.shape)
    for dim in call.integers("dims", ()):
        axis = normal_axis(dim, len(source.shape))
        if not source.shape or not source.shape[axis]:
            raise NotUnderstoodError("it flips nothing")
        starts[axis], stops[axis], steps[axis] = source.shape[axis] - 1, -1, -1
    return Layer(Slice(tuple(starts), tuple(stops), tuple(steps)), (source.name,))


# --- shuffling ----------------------------------------------------------------------------------


def _shuffle(call: Call, source: Tensor, apart: tuple[int, ...], order: tuple[int, ...]) -> Layer:
    """Reshape to `apart`, transpose, reshape to the output."""
    split = call.emit(Reshape(), (source,), apart)
    moved = call.emit(Transpose(order), (split,), tuple(apart[axis] for axis in order))
    return Layer(Reshape(), (moved.name,))


def _image(call: Call) -> tuple[Tensor, tuple[int, ...], int, int, int]:
    source = call.operand("self")
    if len(source.shape) < 3:
        raise NotUnderstoodError("its input has fewer than three axes")
    channels, height, width = source.shape[-3:]
    return source, source.shape[:-3], channels, height, width


def _pixel_shuffle(call: Call) -> Layer:
    source, lead, channels, height, width = _image(call)
    factor = call.integer("upscale_factor", 1)
    if factor < 1 or channels % factor**2:
        raise NotUnderstoodError("its factor does not fit its channels")
    n = len(lead)
    return _shuffle(
        call,
        source,
        (*lead, channels // factor**2, factor, factor, height, width),
        (*range(n), n, n + 3, n + 1, n + 4, n + 2),
    )


def _pixel_unshuffle(call: Call) -> Layer:
    source, lead, channels, height, width = _image(call)
    factor = call.integer("downscale_factor", 1)
    if factor < 1 or height % factor or width % factor:
        raise NotUnderstoodError("its factor does not fit its input")
    n = len(lead)
    return _shuffle(
        call,
        source,
        (*lead, channels, height // factor, factor, width // factor, factor),
        (*range(n), n, n + 2, n + 4, n + 1, n + 3),
    )


def _channel_shuffle(call: Call) -> Layer:
    source, groups = call.operand("self"), call.integer("groups", 1)
    if len(source.shape) < 2 or groups < 1 or source.shape[1] % groups:
        raise NotUnderstoodError("its groups do not fit its channels")
    batch, channels, *rest = source.shape
    order = (0, 2, 1, *range(3, len(rest) + 3))
    return _shuffle(call, source, (batch, groups, channels // groups, *rest), order)


BUILDERS: Mapping[str, Builder] = {
    "aten.index_select.default": _index_select,
    "aten.index.Tensor": _index,
    "aten.as_strided.default": _as_strided,
    "aten.pad.default": _pad(None),
    "aten.constant_pad_nd.default": _pad("constant"),
    **{f"aten.reflection_pad{d}d.default": _pad("reflect") for d in (1, 2, 3)},
    **{f"aten.replication_pad{d}d.default": _pad("replicate") for d in (1, 2, 3)},
    "aten._pad_circular.default": _pad("circular"),
    "aten.roll.default": _roll,
    "aten.flip.default": _flip,
    "aten.pixel_shuffle.default": _pixel_shuffle,
    "aten.pixel_unshuffle.default": _pixel_unshuffle,
    "aten.channel_shuffle.default": _channel_shuffle,
    "aten.native_channel_shuffle.default": _channel_shuffle,
}
