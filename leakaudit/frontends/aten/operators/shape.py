"""Reshaping, transposing, expanding, joining and splitting."""

from __future__ import annotations

import math
from collections.abc import Sequence

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Call, Layer, by_target, normal_axis, same
from leakaudit.frontends.aten.views import RESHAPES, TRANSPOSES, permutation
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.graph import Tensor


def regrouped(x: Tensor) -> Layer:
    """The elements of x in row-major order, in the shape of what the layer gives."""
    return Layer(ops.Reshape(), (x.name,))


def reshaped(call: Call, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """x in another shape, before the call's own node."""
    return call.computed(regrouped(x), shape)


def reordered(x: Tensor, order: tuple[int, ...]) -> Layer:
    """x with its axes in another order."""
    return Layer(ops.Transpose(order), (x.name,))


def joined(parts: Sequence[Tensor], axis: int) -> Layer:
    """Tensors one after the other along an axis."""
    return Layer(ops.Concat(axis), tuple(part.name for part in parts))


def _reshape(call: Call) -> Layer:
    return regrouped(call.operand("self"))


def _transpose(call: Call) -> Layer:
    source = call.operand("self")
    return reordered(source, permutation(call, len(source.shape)))


def _expand(call: Call) -> Layer:
    source, shape = call.operand("self"), call.output.shape
    asked = call.integers("size", ()) if "size" in call.arguments else shape
    if len(asked) != len(shape) or any(a not in (-1, s) for a, s in zip(asked, shape, strict=True)):
        raise NotUnderstoodError(f"its output is stated as {shape}, and it asks for {asked}")
    return same(source) if source.shape == shape else _grown(source)


def _grown(x: Tensor) -> Layer:
    return Layer(ops.Expand(), (x.name,))


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
        return same(source) if repeats == (1,) * len(source.shape) else _grown(source)
    apart = tuple(part for size in sizes for part in (1, size))
    grown = tuple(part for pair in zip(repeats, sizes, strict=True) for part in pair)
    return regrouped(_expanded(call, source, apart, grown))


def _repeat_interleave(call: Call) -> Layer:
    source, count = call.operand("self"), call.integer("repeats", 1)
    if call.arguments.get("dim") is None:
        source = reshaped(call, source, (math.prod(source.shape),))
    axis = normal_axis(call.integer("dim", 0) if len(source.shape) > 1 else 0, len(source.shape))
    if count < 1 or not source.shape:
        raise NotUnderstoodError("its repeats do not fit its input")
    apart = (*source.shape[: axis + 1], 1, *source.shape[axis + 1 :])
    grown = (*source.shape[: axis + 1], count, *source.shape[axis + 1 :])
    return regrouped(_expanded(call, source, apart, grown))


def _expanded(call: Call, source: Tensor, apart: tuple[int, ...], grown: tuple[int, ...]) -> Tensor:
    return call.computed(_grown(reshaped(call, source, apart)), grown)


def _concat(call: Call) -> Layer:
    parts = _parts(call)
    # An old rule of torch: an empty vector joins with anything.
    parts = [part for part in parts if part.shape != (0,)] or parts[:1]
    return joined(parts, call.axis("dim", len(parts[0].shape)))


def _parts(call: Call) -> list[Tensor]:
    parts = [call.operand_of(value, "tensors") for value in call.members("tensors")]
    if not parts:
        raise NotUnderstoodError("it joins nothing")
    return parts


def _stack_rows(call: Call) -> Layer:
    """hstack and vstack: along the second or the first axis, of vectors made wide enough."""
    parts = _parts(call)
    least, axis = (2, 0) if "vstack" in call.target else (1, 1)
    axes = max(len(parts[0].shape), least)
    wide = [
        part
        if len(part.shape) == axes
        else reshaped(call, part, (1,) * (axes - len(part.shape)) + part.shape)
        for part in parts
    ]
    return joined(wide, min(axis, axes - 1))


def _stack(call: Call) -> Layer:
    parts = _parts(call)
    shape = parts[0].shape
    axis = call.axis("dim", len(shape) + 1)
    wide = (*shape[:axis], 1, *shape[axis:])
    return joined([reshaped(call, part, wide) for part in parts], axis)


def _split(call: Call) -> Layer:
    source = call.operand("self")
    axis = call.axis("dim", len(source.shape))
    if not source.shape:
        raise NotUnderstoodError("its input is a single number")
    sizes = _part_sizes(call, source.shape[axis])
    return Layer(ops.Split(axis, sizes), (source.name,), outputs=call.outputs)


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


def _overwritten(call: Call) -> Layer:
    """The functional copy: the first argument gives nothing but its shape."""
    return _grown(call.operand("src"))


def _as_strided(call: Call) -> Layer:
    """A view that only restates the layout of memory is a reshape."""
    source = call.operand("self")
    dense = {source.name, call.output.name} <= call.sink.row_major
    if not dense or call.arguments.get("storage_offset") not in (None, 0):
        raise NotUnderstoodError("it reads memory out of order")
    return regrouped(source)


def _shuffle(call: Call, source: Tensor, apart: tuple[int, ...], order: tuple[int, ...]) -> Layer:
    """Reshape to `apart`, transpose, reshape to the output."""
    split = reshaped(call, source, apart)
    moved = call.computed(reordered(split, order), tuple(apart[axis] for axis in order))
    return regrouped(moved)


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
    apart = (*lead, channels // factor**2, factor, factor, height, width)
    return _shuffle(call, source, apart, (*range(n), n, n + 3, n + 1, n + 4, n + 2))


def _pixel_unshuffle(call: Call) -> Layer:
    source, lead, channels, height, width = _image(call)
    factor = call.integer("downscale_factor", 1)
    if factor < 1 or height % factor or width % factor:
        raise NotUnderstoodError("its factor does not fit its input")
    n = len(lead)
    apart = (*lead, channels, height // factor, factor, width // factor, factor)
    return _shuffle(call, source, apart, (*range(n), n, n + 2, n + 4, n + 1, n + 3))


def _channel_shuffle(call: Call) -> Layer:
    source, groups = call.operand("self"), call.integer("groups", 1)
    if len(source.shape) < 2 or groups < 1 or source.shape[1] % groups:
        raise NotUnderstoodError("its groups do not fit its channels")
    batch, channels, *rest = source.shape
    order = (0, 2, 1, *range(3, len(rest) + 3))
    return _shuffle(call, source, (batch, groups, channels // groups, *rest), order)


BUILDERS = by_target(
    {
        "expand expand_as broadcast_to": _expand,
        "repeat tile": _repeat,
        "repeat_interleave.self_int": _repeat_interleave,
        "cat concat concatenate": _concat,
        "stack": _stack,
        "hstack vstack": _stack_rows,
        "split.Tensor split.sizes split_with_sizes unsafe_split.Tensor chunk": _split,
        "tensor_split.sections tensor_split.indices": _split,
        "copy": _overwritten,
        "as_strided": _as_strided,
        "pixel_shuffle": _pixel_shuffle,
        "pixel_unshuffle": _pixel_unshuffle,
        "channel_shuffle native_channel_shuffle": _channel_shuffle,
    }
)
BUILDERS |= dict.fromkeys(RESHAPES, _reshape) | dict.fromkeys(TRANSPOSES, _transpose)
