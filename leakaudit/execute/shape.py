"""Operators that move, copy, drop or reduce elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.execute.interface import (
    Inputs,
    NotExecutable,
    Outputs,
    Parameters,
    stated_shape,
)
from leakaudit.graph import Graph, Node
from leakaudit.operators import (
    Concat,
    Expand,
    Gather,
    Pad,
    Reduce,
    Reshape,
    Slice,
    Split,
    Transpose,
    Where,
)


def reshape(op: Reshape, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """The same elements under the stated shape."""
    return (x[0].reshape(stated_shape(graph, node)),)


def transpose(
    op: Transpose, x: Inputs, parameters: Parameters, graph: Graph, node: Node
) -> Outputs:
    """The axes in another order."""
    return (x[0].permute(op.permutation),)


def expand(op: Expand, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """Broadcast to the stated shape."""
    return (x[0].expand(stated_shape(graph, node)),)


def concat(op: Concat, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """One after the other."""
    return (torch.cat(list(x), op.axis),)


def split(op: Split, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """Consecutive parts."""
    return tuple(torch.functional.split(x[0], list(op.sizes), op.axis))


def slice_axes(op: Slice, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """x[starts : stops : steps]; torch's own slices take no negative step."""
    y = x[0]
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


def gather(op: Gather, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """Chosen elements of one axis, which the axes of `shape` replace.

    Raises:
        NotExecutable: An index lies outside the axis.
    """
    size = x[0].shape[op.axis]
    if op.indices and not 0 <= min(op.indices) <= max(op.indices) < size:
        raise NotExecutable(f"{node.name} (an index lies outside its axis of size {size})")
    chosen = x[0].index_select(op.axis, torch.tensor(op.indices, device=x[0].device).long())
    return (chosen.reshape((*x[0].shape[: op.axis], *op.shape, *x[0].shape[op.axis + 1 :])),)


def pad(op: Pad, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """Pad by a constant, or by repeating elements of the axis itself.

    Raises:
        NotExecutable: The mode is not known.
    """
    y = x[0]
    if op.mode == "constant":
        widths: list[int] = []
        for begin, end in zip(reversed(op.begin), reversed(op.end), strict=True):
            widths += [begin, end]
        return (F.pad(y, widths, value=op.value),)
    source = _PADDING.get(op.mode)
    if source is None:
        raise NotExecutable(f"{node.name} (padding mode {op.mode})")
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


def where(op: Where, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """The second input where the first is true, the third elsewhere.

    What is not chosen has no part in the result: infinite or undefined numbers stay where they are.
    """
    return (torch.where(x[0], x[1], x[2]),)


def reduce(op: Reduce, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """Reduce over the axes, or elementwise (over single elements) where there are none.

    Raises:
        NotExecutable: The function has no entry in `REDUCTIONS`.
    """
    function = REDUCTIONS.get(op.function)
    if function is None:
        raise NotExecutable(f"{node.name} (reduction {op.function})")
    kept = [axis for axis in range(x[0].dim()) if axis not in op.axes]
    sizes = [x[0].shape[axis] for axis in kept]
    count = math.prod(x[0].shape[axis] for axis in op.axes)
    y = function(x[0].permute(*kept, *sorted(op.axes)).reshape(*sizes, count))
    if op.keepdims:
        y = y.reshape([1 if axis in op.axes else size for axis, size in enumerate(x[0].shape)])
    return (y,)


# Over the last axis. Sums and products stay in the dtype; torch would widen small integers.
REDUCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum(-1, dtype=x.dtype),
    "mean": lambda x: x.mean(-1),
    "max": lambda x: x.amax(-1),
    "min": lambda x: x.amin(-1),
    "prod": lambda x: x.prod(-1, dtype=x.dtype),
    "l1": lambda x: torch.linalg.vector_norm(x, 1, -1),
    "l2": lambda x: torch.linalg.vector_norm(x, 2, -1),
    "log_sum_exp": lambda x: x.logsumexp(-1),
}
