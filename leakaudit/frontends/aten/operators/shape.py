"""Reshaping, transposing, copying, cutting and joining."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from leakaudit.frontends.aten.call import Call, Layer, normal_axis
from leakaudit.frontends.aten.values import NotUnderstoodError, is_floating
from leakaudit.frontends.aten.views import CASTS, COPIES, RESHAPES, TRANSPOSES, permutation
from leakaudit.graph import Tensor
from leakaudit.operators import Concat, Expand, Gather, Identity, Reshape, Slice, Split, Transpose

Layers = Layer | tuple[Layer, ...]


def one_axis(shape: tuple[int, ...], axis: int, kept: range) -> Slice:
    """The elements `kept` of one axis, and all of every other."""
    starts, stops, steps = [0] * len(shape), list(shape), [1] * len(shape)
    starts[axis], stops[axis], steps[axis] = kept.start, max(kept.stop, kept.start), kept.step
    if kept.step < 0:
        stops[axis] = kept.stop
    return Slice(tuple(starts), tuple(stops), tuple(steps))


def _copy(call: Call) -> Layer:
    return Layer(Identity(), (call.operand(call.source_name()).name,))


def _cast(call: Call) -> Layer:
    source, wanted = call.operand(call.source_name()), call.output.dtype
    if source.dtype != wanted and not (is_floating(source.dtype) and is_floating(wanted)):
        raise NotUnderstoodError(f"it turns {source.dtype} data into {wanted}")
    return Layer(Identity(), (source.name,))


def _reshape(call: Call) -> Layer:
    return Layer(Reshape(), (call.operand("self").name,))


def _transpose(call: Call) -> Layer:
    source = call.operand("self")
    return Layer(Transpose(permutation(call, len(source.shape))), (source.name,))


def _expand(call: Call) -> Layer:
    source, shape = call.operand("self"), call.output.shape
    asked = call.integers("size", ()) if "size" in call.arguments else shape
    if len(asked) != len(shape) or any(a not in (-1, s) for a, s in zip(asked, shape, strict=True)):
        raise NotUnderstoodError(f"its output is stated as {shape}, and it asks for {asked}")
    op = Identity() if source.shape == shape else Expand()
    return Layer(op, (source.name,))


def _repeat(call: Call) -> Layer:
    """Copies along every axis: each axis of r copies is split off, expanded, and joined again."""
    source = call.operand("self")
    repeats = call.integers("dims" if "dims" in call.arguments else "repeats", ())
    if "tile" in call.target:
        repeats = (1,) * (len(source.shape) - len(repeats)) + repeats
    new = len(repeats) - len(source.shape)
    if new < 0 or min(repeats, default=1) < 1:
        raise NotUnderstoodError("its repeats do not fit its input")
    sizes = ((1,) * new) + source.shape
    if all(count == 1 or size == 1 for count, size in zip(repeats, sizes, strict=True)):
        if call.output.shape != tuple(r * s for r, s in zip(repeats, sizes, strict=True)):
            raise NotUnderstoodError("its repeats do not fit its output")
        op = Identity() if repeats == (1,) * len(source.shape) else Expand()
        return Layer(op, (source.name,))
    apart = tuple(part for size in sizes for part in (1, size))
    grown = tuple(part for pair in zip(repeats, sizes, strict=True) for part in pair)
    return Layer(Reshape(), (_expanded(call, source, apart, grown).name,))


def _repeat_interleave(call: Call) -> Layer:
    source, count = call.operand("self"), call.integer("repeats", 1)
    if call.arguments.get("dim") is None:
        source = call.emit(Reshape(), (source,), (math.prod(source.shape),))
    axis = normal_axis(call.integer("dim", 0) if len(source.shape) > 1 else 0, len(source.shape))
    if count < 1 or not source.shape:
        raise NotUnderstoodError("its repeats do not fit its input")
    apart = (*source.shape[: axis + 1], 1, *source.shape[axis + 1 :])
    grown = (*source.shape[: axis + 1], count, *source.shape[axis + 1 :])
    return Layer(Reshape(), (_expanded(call, source, apart, grown).name,))


def _expanded(call: Call, source: Tensor, apart: tuple[int, ...], grown: tuple[int, ...]) -> Tensor:
    return call.emit(Expand(), (call.emit(Reshape(), (source,), apart),), grown)


def _concat(call: Call) -> Layer:
    parts = [call.operand_of(value, "tensors") for value in call.members("tensors")]
    # An old rule of torch: an empty vector joins with anything.
    parts = [part for part in parts if part.shape != (0,)] or parts[:1]
    if not parts:
        raise NotUnderstoodError("it joins nothing")
    axis = normal_axis(call.integer("dim", 0), len(parts[0].shape))
    return Layer(Concat(axis), tuple(part.name for part in parts))


def _stack_rows(call: Call) -> Layer:
    """hstack and vstack: along the second or the first axis, of vectors made wide enough."""
    parts = [call.operand_of(value, "tensors") for value in call.members("tensors")]
    if not parts:
        raise NotUnderstoodError("it joins nothing")
    least, axis = (2, 0) if "vstack" in call.target else (1, 1)
    axes = max(len(parts[0].shape), least)
    wide = [
        part
        if len(part.shape) == axes
        else call.emit(Reshape(), (part,), (1,) * (axes - len(part.shape)) + part.shape)
        for part in parts
    ]
    return Layer(Concat(min(axis, axes - 1)), tuple(part.name for part in wide))


def _stack(call: Call) -> Layer:
    parts = [call.operand_of(value, "tensors") for value in call.members("tensors")]
    if not parts:
        raise NotUnderstoodError("it joins nothing")
    shape = parts[0].shape
    axis = normal_axis(call.integer("dim", 0), len(shape) + 1)
    wide = (*shape[:axis], 1, *shape[axis:])
    return Layer(Concat(axis), tuple(call.emit(Reshape(), (part,), wide).name for part in parts))


# --- cutting ------------------------------------------------------------------------------------


def _split(call: Call) -> Layer:
    source = call.operand("self")
    axis = normal_axis(call.integer("dim", 0), len(source.shape))
    if not source.shape:
        raise NotUnderstoodError("its input is a single number")
    sizes = _part_sizes(call, source.shape[axis])
    return Layer(Split(axis, sizes), (source.name,))


def _part_sizes(call: Call, size: int) -> tuple[int, ...]:
    for name in ("split_sizes", "split_size"):
        if isinstance(call.arguments.get(name), tuple):
            return call.integers(name, ())
    if "chunk" in call.target:
        chunks = call.integer("chunks", 1)
        if chunks < 1:
            raise NotUnderstoodError("it has no chunks")
        return _equal_parts(size, -(-size // chunks))
    if "indices" in call.arguments:
        ends = [
            min(max(end + size if end < 0 else end, 0), size)
            for end in call.integers("indices", ())
        ]
        return tuple(
            max(end - start, 0) for start, end in zip([0, *ends], [*ends, size], strict=True)
        )
    if "sections" in call.arguments:
        sections = call.integer("sections", 1)
        if sections != len(call.outputs) or sections < 1:
            raise NotUnderstoodError(f"it has {len(call.outputs)} outputs")
        least, longer = divmod(size, sections)
        return tuple(least + 1 if index < longer else least for index in range(sections))
    return _equal_parts(size, call.integer("split_size", 0))


def _equal_parts(size: int, part: int) -> tuple[int, ...]:
    """Parts of equal size and a shorter last one."""
    if part < 1:
        raise NotUnderstoodError("its parts are empty")
    whole, rest = divmod(size, part)
    if whole > 10_000:
        raise NotUnderstoodError("it has more than 10,000 parts")
    return (part,) * whole + ((rest,) if rest else ())


def _unbind(call: Call) -> Layers:
    source = call.operand("self")
    axis = normal_axis(call.integer("dim", 0), len(source.shape))
    if source.shape[axis : axis + 1] != (len(call.outputs),):
        raise NotUnderstoodError(f"it has {len(call.outputs)} outputs")
    return tuple(
        Layer(Gather(axis, (index,), ()), (source.name,), outputs=(output,))
        for index, output in enumerate(call.outputs)
    )


def _slice(call: Call) -> Layer:
    source = call.operand("self")
    axis = normal_axis(call.integer("dim", 0), len(source.shape))
    bounds = call.bounds()
    if bounds.step < 1 or not source.shape:
        raise NotUnderstoodError("its step is below 1, or its input a single number")
    kept = range(*bounds.indices(source.shape[axis]))
    if kept == range(source.shape[axis]):
        return Layer(Identity(), (source.name,))
    return Layer(one_axis(source.shape, axis, kept), (source.name,))


def _slice_scatter(call: Call) -> Layer:
    """A copy of the first argument in which a range of one axis is that of `src`."""
    source, new = call.operand("self"), call.operand("src")
    axis = normal_axis(call.integer("dim", 0), len(source.shape))
    bounds = call.bounds()
    if bounds.step != 1 or not source.shape:
        raise NotUnderstoodError("its step is not 1, or its input a single number")
    size = source.shape[axis]
    kept = range(*bounds.indices(size))
    return _with_range(call, source, axis, range(kept.start, max(kept.stop, kept.start)), new)


def _select_scatter(call: Call) -> Layer:
    source, new = call.operand("self"), call.operand("src")
    axis, index = _axis_and_index(call, source)
    row = call.emit(Reshape(), (new,), (*source.shape[:axis], 1, *source.shape[axis + 1 :]))
    return _with_range(call, source, axis, range(index, index + 1), row)


def _with_range(call: Call, source: Tensor, axis: int, changed: range, new: Tensor) -> Layer:
    shape, size = source.shape, source.shape[axis]
    if len(changed) == size:
        return Layer(Identity(), (new.name,))
    parts: list[Tensor] = []
    for kept in (range(changed.start), None, range(changed.stop, size)):
        if kept is None:
            parts.append(new)
        elif kept:
            narrowed = (*shape[:axis], len(kept), *shape[axis + 1 :])
            parts.append(call.emit(one_axis(shape, axis, kept), (source,), narrowed))
    return Layer(Concat(axis), tuple(part.name for part in parts))


def _overwritten(call: Call) -> Layer:
    """The functional copy: the first argument gives nothing but its shape."""
    return Layer(Expand(), (call.operand("src").name,))


def _narrow(call: Call) -> Layer:
    source = call.operand("self")
    axis = normal_axis(call.integer("dim", 0), len(source.shape))
    start, length = call.integer("start", 0), call.integer("length", 0)
    size = (source.shape or (1,))[axis]
    start += size if start < 0 else 0
    if not (source.shape and 0 <= start <= start + length <= size):
        raise NotUnderstoodError("its range does not fit its input")
    return Layer(one_axis(source.shape, axis, range(start, start + length)), (source.name,))


def _select(call: Call) -> Layer:
    source = call.operand("self")
    axis, index = _axis_and_index(call, source)
    return Layer(Gather(axis, (index,), ()), (source.name,))


def _axis_and_index(call: Call, source: Tensor) -> tuple[int, int]:
    """The arguments `dim` and `index`, both counted from the front."""
    axis = normal_axis(call.integer("dim", 0), len(source.shape))
    index = call.integer("index", 0)
    size = (source.shape or (0,))[axis]
    index += size if index < 0 else 0
    if not 0 <= index < size:
        raise NotUnderstoodError("its index lies outside its input")
    return axis, index


BUILDERS: Mapping[str, Callable[[Call], Layers]] = {
    **dict.fromkeys(COPIES, _copy),
    **dict.fromkeys(CASTS, _cast),
    **dict.fromkeys(RESHAPES, _reshape),
    **dict.fromkeys(TRANSPOSES, _transpose),
    "aten.expand.default": _expand,
    "aten.expand_as.default": _expand,
    "aten.broadcast_to.default": _expand,
    "aten.repeat.default": _repeat,
    "aten.tile.default": _repeat,
    "aten.repeat_interleave.self_int": _repeat_interleave,
    "aten.cat.default": _concat,
    "aten.concat.default": _concat,
    "aten.concatenate.default": _concat,
    "aten.stack.default": _stack,
    "aten.hstack.default": _stack_rows,
    "aten.vstack.default": _stack_rows,
    "aten.split.Tensor": _split,
    "aten.split.sizes": _split,
    "aten.split_with_sizes.default": _split,
    "aten.chunk.default": _split,
    "aten.tensor_split.sections": _split,
    "aten.tensor_split.indices": _split,
    "aten.unsafe_split.Tensor": _split,
    "aten.unbind.int": _unbind,
    "aten.slice.Tensor": _slice,
    "aten.slice_scatter.default": _slice_scatter,
    "aten.select_scatter.default": _select_scatter,
    "aten.copy.default": _overwritten,
    "aten.narrow.default": _narrow,
    "aten.select.int": _select,
}
