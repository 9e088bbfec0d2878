"""Constants made from nothing, rearranged, joined and reduced, in numpy.

Views share memory with what they are views of, as in torch: a later write reaches both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from leakaudit.frontends.aten.call import Call
from leakaudit.frontends.aten.folding.elementwise import operand
from leakaudit.frontends.aten.values import Array, Stored, numpy_dtype
from leakaudit.frontends.aten.views import CASTS, COPIES, DETACH, RESHAPES, TRANSPOSES, permutation
from leakaudit.frontends.build import MAX_MASK_ELEMENTS, NotUnderstoodError
from leakaudit.graph import Tensor

Fold = Callable[[Call], Array | tuple[Array, ...]]


# --- constants made from nothing ------------------------------------------------------------------


def _filled(value: float | str) -> Fold:
    """An array of the stated shape with one value, given or the name of an argument."""

    def folded(call: Call) -> Array:
        number = operand(call, value) if isinstance(value, str) else value
        output = call.outputs[0]
        like = call.arguments.get("self")
        if "size" in call.arguments:
            asked = call.integers("size", ())
        else:
            asked = like.shape if isinstance(like, Tensor | Stored) else ()
        if asked != output.shape:
            raise NotUnderstoodError("its output has another shape than the file states")
        return np.full(output.shape, number, numpy_dtype(output.dtype))

    return folded


def _range(call: Call) -> Array:
    start, end, step = (
        call.arguments.get(name, default)
        for name, default in (("start", 0), ("end", 0), ("step", 1))
    )
    numbers = [value for value in (start, end, step) if isinstance(value, int | float)]
    if len(numbers) != 3 or not numbers[2]:
        raise NotUnderstoodError("its bounds are not constant")
    (count,) = call.outputs[0].shape
    if count != max(math.ceil((numbers[1] - numbers[0]) / numbers[2]), 0):
        raise NotUnderstoodError("its output has another shape than the file states")
    return numbers[0] + np.arange(count) * numbers[2]


def _linspace(call: Call) -> Array:
    (count,) = call.outputs[0].shape
    return np.linspace(call.number("start", 0.0), call.number("end", 0.0), count)


def _eye(call: Call) -> Array:
    rows, columns = call.outputs[0].shape
    return np.eye(rows, columns)


# --- rearrangements -----------------------------------------------------------------------------


def _view(call: Call) -> Array:
    return call.numbers(call.source_name()).reshape(call.outputs[0].shape)


def _alias(call: Call) -> Array:
    return call.numbers(call.source_name())


def _copy(call: Call) -> Array:
    return call.numbers(call.source_name()).copy()


def _transpose(call: Call) -> Array:
    source = call.numbers("self")
    return source.transpose(permutation(call, source.ndim))


def _expand(call: Call) -> Array:
    return np.broadcast_to(call.numbers("self"), call.outputs[0].shape)


def _sliced(call: Call, source: Array) -> tuple[slice, ...]:
    axis = call.axis("dim", source.ndim)
    return (*(slice(None),) * axis, call.bounds())


def _slice(call: Call) -> Array:
    source = call.numbers("self")
    return source[_sliced(call, source)]


def _slice_scatter(call: Call) -> Array:
    found = call.numbers("self").copy()
    found[_sliced(call, found)] = call.numbers("src")
    return found


def _selected(call: Call, source: Array) -> tuple[slice | int, ...]:
    axis = call.axis("dim", source.ndim)
    return (*(slice(None),) * axis, call.integer("index", 0))


def _select(call: Call) -> Array:
    source = call.numbers("self")
    # The ellipsis keeps the view of a single element a view.
    return source[(*_selected(call, source), ...)]


def _select_scatter(call: Call) -> Array:
    found = call.numbers("self").copy()
    found[_selected(call, found)] = call.numbers("src")
    return found


def _index(call: Call) -> Array:
    source = call.numbers("self")
    picks = tuple(
        slice(None) if value is None else call.numbers_of(value, "indices")
        for value in call.members("indices")
    )
    shapes = [np.shape(pick) for pick in picks if not isinstance(pick, slice)]
    whole = (
        size for size, pick in zip(source.shape, picks, strict=False) if isinstance(pick, slice)
    )
    rest = math.prod((*whole, *source.shape[len(picks) :]))
    if math.prod(np.broadcast_shapes(*shapes)) * rest > MAX_MASK_ELEMENTS:
        raise NotUnderstoodError("its indices are too many")
    return source[picks]


def _index_put(call: Call) -> Array:
    found = call.numbers("self").copy()
    if call.flag("accumulate", False):
        raise NotUnderstoodError("it adds up")
    picks = tuple(
        slice(None) if value is None else call.numbers_of(value, "indices")
        for value in call.members("indices")
    )
    found[picks] = call.numbers("values")
    return found


def _gathered(call: Call) -> Array:
    source, index = call.numbers("self"), call.numbers("index")
    axis = call.integer("dim", 0)
    # torch lets the index be shorter than the source on the other axes.
    whole = tuple(
        slice(None) if n == axis % source.ndim else slice(size)
        for n, size in enumerate(index.shape)
    )
    return np.take_along_axis(source[whole], index, axis)


def _joined(function: Callable[..., Array]) -> Fold:
    def folded(call: Call) -> Array:
        parts = [call.numbers_of(value, "tensors") for value in call.members("tensors")]
        if sum(part.size for part in parts) != math.prod(call.outputs[0].shape):
            raise NotUnderstoodError("its output has another shape than the file states")
        return function(parts, axis=call.integer("dim", 0))

    return folded


def _grid(call: Call) -> tuple[Array, ...]:
    parts = [call.numbers_of(value, "tensors") for value in call.members("tensors")]
    indexing: Literal["xy", "ij"] = "xy" if call.arguments.get("indexing") == "xy" else "ij"
    if math.prod(part.size for part in parts) != math.prod(call.outputs[0].shape):
        raise NotUnderstoodError("its output has another shape than the file states")
    return tuple(np.meshgrid(*parts, indexing=indexing))


def _unbound(call: Call) -> tuple[Array, ...]:
    return tuple(np.moveaxis(call.numbers("self"), call.integer("dim", 0), 0))


def _split(call: Call) -> tuple[Array, ...]:
    source, axis = call.numbers("self"), call.integer("dim", 0)
    ends = np.cumsum([output.shape[axis] for output in call.outputs])[:-1]
    return tuple(np.split(source, ends.tolist(), axis))


def _repeat(call: Call) -> Array:
    source, repeats = call.numbers("self"), call.integers("repeats", ())
    if math.prod(repeats) * source.size > MAX_MASK_ELEMENTS or min(repeats, default=0) < 0:
        raise NotUnderstoodError("its output is too large")
    return np.tile(source, repeats)


def _rolled(call: Call) -> Array:
    axes = call.integers("dims", ())
    return np.roll(call.numbers("self"), call.integers("shifts", ()), axes or None)


def _flipped(call: Call) -> Array:
    return np.flip(call.numbers("self"), call.integers("dims", ())).copy()


def _triangle(function: Callable[..., Array]) -> Fold:
    return lambda call: function(call.numbers("self"), call.integer("diagonal", 0))


# --- reductions ---------------------------------------------------------------------------------


def _reduced(function: Callable[..., Array]) -> Fold:
    def folded(call: Call) -> Array:
        given = call.arguments.get("dim")
        axes = None if given in (None, ()) else call.integers("dim", ())
        return np.asarray(
            function(call.numbers("self"), axis=axes, keepdims=call.flag("keepdim", False))
        )

    return folded


def _cumulative_sum(call: Call) -> Array:
    return np.cumsum(call.numbers("self"), axis=call.integer("dim", 0))


def _differences(call: Call) -> Array:
    if call.integer("n", 1) != 1:
        raise NotUnderstoodError("it takes differences of differences")
    ends = [
        None if call.arguments.get(name) is None else call.numbers(name)
        for name in ("prepend", "self", "append")
    ]
    axis = call.integer("dim", -1)
    return np.diff(np.concatenate([end for end in ends if end is not None], axis), axis=axis)


_VIEWS = (*(name for name in COPIES if "copy" not in name and "clone" not in name), *DETACH)


FOLDS: Mapping[str, Fold] = {
    **{f"aten.zeros{end}": _filled(0) for end in (".default", "_like.default")},
    **{f"aten.ones{end}": _filled(1) for end in (".default", "_like.default")},
    **{f"aten.full{end}": _filled("fill_value") for end in (".default", "_like.default")},
    # What memory holds before anything is written is nobody's to know.
    **dict.fromkeys(("aten.empty.memory_format", "aten.empty_like.default"), _filled(0)),
    "aten.new_empty.default": _filled(0),
    "aten.new_zeros.default": _filled(0),
    "aten.new_ones.default": _filled(1),
    "aten.new_full.default": _filled("fill_value"),
    "aten.scalar_tensor.default": _filled("s"),
    "aten.fill.Scalar": _filled("value"),
    "aten.fill.Tensor": _filled("value"),
    **dict.fromkeys(("aten.arange.default", "aten.arange.start", "aten.arange.start_step"), _range),
    "aten.linspace.default": _linspace,
    **dict.fromkeys(("aten.eye.default", "aten.eye.m"), _eye),
    **dict.fromkeys(_VIEWS, _alias),
    **dict.fromkeys((name for name in COPIES if name not in _VIEWS), _copy),
    **dict.fromkeys((name for name in CASTS if name != "aten._to_copy.default"), _alias),
    "aten._to_copy.default": _copy,
    **dict.fromkeys(RESHAPES, _view),
    **dict.fromkeys(TRANSPOSES, _transpose),
    **dict.fromkeys(
        ("aten.expand.default", "aten.expand_as.default", "aten.broadcast_to.default"), _expand
    ),
    "aten.copy.default": lambda call: np.broadcast_to(
        call.numbers("src"), call.outputs[0].shape
    ).copy(),
    "aten.slice.Tensor": _slice,
    "aten.slice_scatter.default": _slice_scatter,
    "aten.select.int": _select,
    "aten.select_scatter.default": _select_scatter,
    "aten.index.Tensor": _index,
    "aten.index_put.default": _index_put,
    "aten.gather.default": _gathered,
    "aten.cat.default": _joined(np.concatenate),
    "aten.stack.default": _joined(np.stack),
    **dict.fromkeys(("aten.meshgrid.default", "aten.meshgrid.indexing"), _grid),
    "aten.unbind.int": _unbound,
    **dict.fromkeys(
        (
            *("aten.split.Tensor", "aten.split.sizes", "aten.split_with_sizes.default"),
            "aten.chunk.default",
        ),
        _split,
    ),
    "aten.repeat.default": _repeat,
    "aten.roll.default": _rolled,
    "aten.flip.default": _flipped,
    "aten.tril.default": _triangle(np.tril),
    "aten.triu.default": _triangle(np.triu),
    **dict.fromkeys(("aten.sum.default", "aten.sum.dim_IntList"), _reduced(np.sum)),
    **dict.fromkeys(("aten.mean.default", "aten.mean.dim"), _reduced(np.mean)),
    **dict.fromkeys(("aten.amax.default", "aten.max.default"), _reduced(np.max)),
    **dict.fromkeys(("aten.amin.default", "aten.min.default"), _reduced(np.min)),
    **dict.fromkeys(("aten.any.default", "aten.any.dim", "aten.any.dims"), _reduced(np.any)),
    **dict.fromkeys(("aten.all.default", "aten.all.dim", "aten.all.dims"), _reduced(np.all)),
    "aten.cumsum.default": _cumulative_sum,
    "aten.diff.default": _differences,
}
