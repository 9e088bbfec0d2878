"""Operators that only rearrange, and what they make of stored numbers.

Decomposed graphs read `weight.t()`: a view of a parameter is resolved to the parameter, so that a
dense layer is recognised however its weight was turned before.
"""

from __future__ import annotations

import math
from dataclasses import replace

from leakaudit.frontends.aten.call import Call, normal_axis, targets
from leakaudit.frontends.aten.values import Stored, is_floating
from leakaudit.frontends.build import NotUnderstoodError

_SWAPS = {
    "aten.transpose.int": ("dim0", "dim1"),
    "aten.swapaxes.default": ("axis0", "axis1"),
    "aten.swapdims.default": ("dim0", "dim1"),
}
_MOVES = targets("movedim.int movedim.intlist moveaxis.int moveaxis.intlist")
_MATRIX_TRANSPOSES = targets("mT mH adjoint")

ALIASES = targets("alias contiguous lift_fresh positive resolve_conj resolve_neg")
COPIES = (*ALIASES, *targets("clone lift_fresh_copy"))
CASTS = targets("to.dtype to.dtype_layout to.device to.other _to_copy type_as")
DETACH = targets("detach detach_")
RESHAPES = targets(
    "flatten.using_ints unflatten.int view view_as _unsafe_view reshape reshape_as ravel "
    "squeeze squeeze.dim squeeze.dims unsqueeze"
)
TRANSPOSES = (*targets("permute t numpy_T"), *_SWAPS, *_MOVES, *_MATRIX_TRANSPOSES)


def permutation(call: Call, axes: int) -> tuple[int, ...]:
    """The permutation that a transposing call applies to a tensor with `axes` axes.

    Raises:
        NotUnderstoodError: The arguments are not a permutation.
    """
    order = list(range(axes))
    if call.target == "aten.permute.default":
        order = [normal_axis(axis, axes) for axis in call.integers("dims", ())]
    elif call.target == "aten.numpy_T.default":
        order.reverse()
    elif call.target in _MOVES:
        order = _moved(call, axes)
    elif call.target in _SWAPS:
        first, second = (call.axis(name, axes) for name in _SWAPS[call.target])
        if axes:
            order[first], order[second] = order[second], order[first]
    elif axes == 2 or call.target in _MATRIX_TRANSPOSES:
        order = order[:-2] + order[-2:][::-1]
    if sorted(order) != list(range(axes)):
        raise NotUnderstoodError("its axes are not a permutation")
    return tuple(order)


def _moved(call: Call, axes: int) -> list[int]:
    sources, destinations = (
        [normal_axis(axis, axes) for axis in call.integers(name, ())]
        for name in ("source", "destination")
    )
    if len(sources) != len(destinations):
        raise NotUnderstoodError("its axes are not a permutation")
    placed = dict(zip(destinations, sources, strict=True))
    others = iter(axis for axis in range(axes) if axis not in sources)
    return [placed[axis] if axis in placed else next(others, -1) for axis in range(axes)]


def view_of_stored(call: Call) -> Stored | None:
    """The view of a parameter that this call makes, or None where it is anything else.

    `detach` of a trainable parameter is not a view here: it cuts the parameter's gradient.
    """
    source = call.arguments.get(call.source_name())
    if not isinstance(source, Stored) or len(call.outputs) != 1 or source.name not in call.stored:
        return None
    shape, dtype = call.outputs[0].shape, call.outputs[0].dtype
    if call.target in DETACH and call.stored[source.name].trainable:
        return None
    like = replace(source, dtype=dtype, holder=None, numbers=None)
    if call.target in CASTS and dtype != source.dtype:
        # A layer reads its weight through a cast; numbers of another kind are another constant.
        if not (is_floating(dtype) and is_floating(source.dtype)):
            return None
        return like
    if call.target in COPIES or call.target in CASTS or call.target in DETACH:
        return source
    if call.target in RESHAPES:
        if math.prod(shape) != math.prod(source.shape):
            return None
        if shape == source.shape:
            return source
        return replace(like, shape=shape, reshaped=True)
    # The axes of a regrouped view mean nothing; a swap of them cannot be undone later.
    if call.target in TRANSPOSES and not source.reshaped:
        try:
            order = permutation(call, len(source.shape))
        except NotUnderstoodError:
            return None
        turned = tuple(source.shape[axis] for axis in order)
        axes = tuple(source.permutation[axis] for axis in order)
        return replace(like, shape=turned, permutation=axes)
    return None
