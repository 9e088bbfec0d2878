"""Operators that take, place or choose elements: slices, indices, padding, masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.equations.axes import torch_padding
from leakaudit.execute.interface import Call, Executors, NotExecutable, Outputs, of_inputs
from leakaudit.operators import Gather, Pad, Slice, Where


def slice_axes(op: Slice, call: Call) -> Outputs:
    """call.x[starts : stops : steps]; torch's own slices take no negative step."""
    y = call.x[0]
    for axis, (start, stop, step) in enumerate(zip(op.starts, op.stops, op.steps, strict=True)):
        size = y.shape[axis]
        # range() of a slice's indices is what Python means by it; -1 stands for "past element 0".
        if step > 0:
            taken = range(start, max(start, min(stop, size)), step)
        else:
            taken = range(min(start, size - 1), max(stop, -1), step)
        if taken == range(size):
            continue
        if not taken:
            y = y.narrow(axis, 0, 0)
        elif step > 0:
            y = y[(slice(None),) * axis + (slice(taken.start, taken.stop, step),)]
        else:
            y = y.index_select(axis, torch.arange(taken.start, taken.stop, step, device=y.device))
    return (y,)


def gather(op: Gather, call: Call) -> Outputs:
    """Chosen elements of one axis, which the axes of `shape` replace.

    Raises:
        NotExecutable: An index lies outside the axis.
    """
    x = call.x[0]
    size = x.shape[op.axis]
    if op.indices and not 0 <= min(op.indices) <= max(op.indices) < size:
        raise NotExecutable(f"{call.name} (an index lies outside its axis of size {size})")
    chosen = x.index_select(op.axis, torch.tensor(op.indices, device=x.device).long())
    return (chosen.reshape((*x.shape[: op.axis], *op.shape, *x.shape[op.axis + 1 :])),)


def pad(op: Pad, call: Call) -> Outputs:
    """Pad by a constant, or by repeating elements of the axis itself.

    Raises:
        NotExecutable: The mode is not known.
    """
    y = call.x[0]
    if op.mode == "constant":
        return (F.pad(y, torch_padding(op.begin, op.end), value=op.value),)
    source = _PADDING.get(op.mode)
    if source is None:
        raise NotExecutable(f"{call.name} (padding mode {op.mode})")
    for axis, (begin, end) in enumerate(zip(op.begin, op.end, strict=True)):
        if begin or end:
            size = y.shape[axis]
            position = torch.arange(-begin, size + end, device=y.device)
            y = y.index_select(axis, source(position, size))
    return (y,)


def _reflect(position: Tensor, size: int) -> Tensor:
    """Mirrored at the outermost elements, again and again where the padding is long."""
    if size == 1:
        return torch.zeros_like(position)
    there = position.remainder(2 * (size - 1))
    return torch.minimum(there, 2 * (size - 1) - there)


_PADDING: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "reflect": _reflect,
    "edge": lambda position, size: position.clamp(0, size - 1),
    "wrap": lambda position, size: position.remainder(size),
}


# Where takes the second input where the first is true, the third elsewhere. What is not chosen has
# no part in the result: infinite or undefined numbers stay where they are.
EXECUTORS: Executors = {
    Slice: slice_axes,
    Gather: gather,
    Pad: pad,
    Where: of_inputs(torch.where),
}
