"""Constants made from nothing, rearranged, joined and reduced, in numpy.

Views share memory with what they are views of, as in torch: a later write reaches both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

import numpy as np

from leakaudit.frontends.aten.call import Call, by_target
from leakaudit.frontends.aten.folding.elementwise import operand
from leakaudit.frontends.aten.values import Array, Stored, numpy_dtype
from leakaudit.frontends.aten.views import ALIASES, CASTS, DETACH, RESHAPES, TRANSPOSES, permutation
from leakaudit.frontends.build import MAX_MASK_ELEMENTS, NotUnderstoodError
from leakaudit.graph import Tensor

Fold = Callable[[Call], Array | tuple[Array, ...]]


# --- constants made from nothing ------------------------------------------------------------------


def _filled(call: Call, value: float | str) -> Array:
    """An array of the stated shape with one value, given or the name of an argument."""
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


def _transpose(call: Call) -> Array:
    source = call.numbers("self")
    return source.transpose(permutation(call, source.ndim))


def _expanded(call: Call, name: str) -> Array:
    return np.broadcast_to(call.numbers(name), call.outputs[0].shape)


def _row(call: Call) -> int:
    return call.integer("index", 0)


def _picked(call: Call, part: Callable[[Call], slice | int]) -> Array:
    source = call.numbers("self")
    whole = (slice(None),) * call.axis("dim", source.ndim)
    # The ellipsis keeps the view of a single element a view.
    return source[(*whole, part(call), ...)]


def _scattered(call: Call, part: Callable[[Call], slice | int]) -> Array:
    found = call.numbers("self").copy()
    whole = (slice(None),) * call.axis("dim", found.ndim)
    found[(*whole, part(call))] = call.numbers("src")
    return found


def _index(call: Call) -> Array:
    source = call.numbers("self")
    picks = _picks(call)
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
    found[_picks(call)] = call.numbers("values")
    return found


def _picks(call: Call) -> tuple[slice | Array, ...]:
    return tuple(
        slice(None) if value is None else call.numbers_of(value, "indices")
        for value in call.members("indices")
    )


def _gathered(call: Call) -> Array:
    source, index = call.numbers("self"), call.numbers("index")
    axis = call.integer("dim", 0)
    # torch lets the index be shorter than the source on the other axes.
    whole = tuple(
        slice(None) if n == axis % source.ndim else slice(size)
        for n, size in enumerate(index.shape)
    )
    return np.take_along_axis(source[whole], index, axis)


def _joined(call: Call, function: Callable[..., Array]) -> Array:
    return function(_members(call, sum), axis=call.integer("dim", 0))


def _grid(call: Call) -> tuple[Array, ...]:
    indexing: Literal["xy", "ij"] = "xy" if call.arguments.get("indexing") == "xy" else "ij"
    return tuple(np.meshgrid(*_members(call, math.prod), indexing=indexing))


def _members(call: Call, together: Callable[[Iterable[int]], int]) -> list[Array]:
    """The tensors of a list whose sizes, summed or multiplied, are that of the output."""
    parts = [call.numbers_of(value, "tensors") for value in call.members("tensors")]
    if together(part.size for part in parts) != math.prod(call.outputs[0].shape):
        raise NotUnderstoodError("its output has another shape than the file states")
    return parts


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


def _triangle(call: Call, function: Callable[..., Array]) -> Array:
    return function(call.numbers("self"), call.integer("diagonal", 0))


# --- reductions ---------------------------------------------------------------------------------


def _reduced(call: Call, function: Callable[..., Array]) -> Array:
    given = call.arguments.get("dim")
    axes = None if given in (None, ()) else call.integers("dim", ())
    return np.asarray(
        function(call.numbers("self"), axis=axes, keepdims=call.flag("keepdim", False))
    )


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


FOLDS: dict[str, Fold] = by_target(
    {
        # What memory holds before anything is written is nobody's to know.
        "zeros zeros_like new_zeros empty.memory_format empty_like new_empty": partial(
            _filled, value=0
        ),
        "ones ones_like new_ones": partial(_filled, value=1),
        "full full_like new_full": partial(_filled, value="fill_value"),
        "fill.Scalar fill.Tensor": partial(_filled, value="value"),
        "scalar_tensor": partial(_filled, value="s"),
        "arange arange.start arange.start_step": _range,
        "linspace": _linspace,
        "eye eye.m": _eye,
        "clone lift_fresh_copy _to_copy": lambda call: _alias(call).copy(),
        "expand expand_as broadcast_to": partial(_expanded, name="self"),
        "copy": lambda call: _expanded(call, "src").copy(),
        "slice.Tensor": partial(_picked, part=Call.bounds),
        "slice_scatter": partial(_scattered, part=Call.bounds),
        "select.int": partial(_picked, part=_row),
        "select_scatter": partial(_scattered, part=_row),
        "index.Tensor": _index,
        "index_put": _index_put,
        "gather": _gathered,
        "cat": partial(_joined, function=np.concatenate),
        "stack": partial(_joined, function=np.stack),
        "meshgrid meshgrid.indexing": _grid,
        "unbind.int": _unbound,
        "split.Tensor split.sizes split_with_sizes chunk": _split,
        "repeat": _repeat,
        "roll": _rolled,
        "flip": _flipped,
        "tril": partial(_triangle, function=np.tril),
        "triu": partial(_triangle, function=np.triu),
        "sum sum.dim_IntList": partial(_reduced, function=np.sum),
        "mean mean.dim": partial(_reduced, function=np.mean),
        "amax max": partial(_reduced, function=np.max),
        "amin min": partial(_reduced, function=np.min),
        "any any.dim any.dims": partial(_reduced, function=np.any),
        "all all.dim all.dims": partial(_reduced, function=np.all),
        "cumsum": _cumulative_sum,
        "diff": _differences,
    }
)
FOLDS |= dict.fromkeys(RESHAPES, _view) | dict.fromkeys(TRANSPOSES, _transpose)
# A cast is a view where nothing is cast; what `_to_copy` gives is always memory of its own.
FOLDS = dict.fromkeys((*ALIASES, *DETACH, *CASTS), _alias) | FOLDS
