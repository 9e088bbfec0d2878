"""Operators that only rearrange, and what they make of stored numbers.

Decomposed graphs read `weight.t()`: a view of a parameter is resolved to the parameter, so that a
dense layer is recognised however its weight was turned before.
"""

from __future__ import annotations

import math

from leakaudit.frontends.pt2_call import Call, NotUnderstoodError, Stored

COPIES = (
    "aten.alias.default",
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.lift_fresh_copy.default",
)
DETACH = ("aten.detach.default", "aten.detach_.default")
RESHAPES = (
    "aten.flatten.using_ints",
    "aten.view.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.unsqueeze.default",
    "aten.unflatten.int",
)
TRANSPOSES = ("aten.permute.default", "aten.transpose.int", "aten.t.default")


def permutation(call: Call, axes: int) -> tuple[int, ...]:
    """The permutation that a permute, transpose or t of a tensor with `axes` axes applies.

    Raises:
        NotUnderstoodError: The arguments are not a permutation.
    """
    if call.target == "aten.permute.default":
        order = [d + axes if d < 0 else d for d in call.integers("dims", ())]
    else:
        order = list(range(axes))
        if call.target == "aten.t.default":
            first, second = (0, 1) if axes == 2 else (0, 0)
        else:
            first, second = (
                d + axes if d < 0 else d for d in (call.integer("dim0", 0), call.integer("dim1", 0))
            )
        if not (0 <= first < max(axes, 1) and 0 <= second < max(axes, 1)):
            raise NotUnderstoodError("its axes do not exist")
        if axes:
            order[first], order[second] = order[second], order[first]
    if sorted(order) != list(range(axes)):
        raise NotUnderstoodError("its axes are not a permutation")
    return tuple(order)


def view_of_stored(call: Call) -> Stored | None:
    """The view of a parameter that this call makes, or None where it is anything else.

    `detach` of a trainable parameter is not a view here: it cuts the parameter's gradient.
    """
    source = call.arguments.get("self")
    if not isinstance(source, Stored) or len(call.outputs) != 1:
        return None
    shape = call.outputs[0].shape
    if call.target in DETACH and call.stored[source.name].trainable:
        return None
    if call.target in COPIES or call.target in DETACH:
        return source
    if call.target in RESHAPES:
        if math.prod(shape) != math.prod(source.shape):
            return None
        if shape == source.shape:
            return source
        return Stored(source.name, shape, source.permutation, reshaped=True)
    if call.target in TRANSPOSES:
        try:
            order = permutation(call, len(source.shape))
        except NotUnderstoodError:
            return None
        if source.reshaped:
            # The axes of a regrouped view mean nothing; a swap of them cannot be undone later.
            return None
        return Stored(
            source.name,
            tuple(source.shape[axis] for axis in order),
            tuple(source.permutation[axis] for axis in order),
        )
    return None
