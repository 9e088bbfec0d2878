"""How gradients spread on their way back through a network, operator by operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from leakaudit import operators as ops
from leakaudit.graph import Graph, Node
from leakaudit.leakpath.gradient_rank import (
    ALL,
    Spread,
    full,
    listed,
    mapped,
    mixed,
    nothing,
    renamed,
    reshaped,
    scaled,
    short,
    summed_to,
    tidy,
    total,
    unlimited,
)


def spreads(graph: Graph) -> Mapping[str, Spread]:
    """The bounds on dl/dt of every tensor t that a node makes, by its name.

    They hold for any weights and any loss, and are worked out from the outputs towards the inputs.
    """
    found: dict[str, Spread] = {}

    def of(tensor: str) -> Spread:
        shape = graph.tensors[tensor].shape
        if tensor in graph.outputs or not all(shape):
            return full(shape)
        parts = [
            passed_back(graph, use.node, use.index, [found[name] for name in use.node.outputs])
            for use in graph.uses[tensor]
        ]
        return total(shape, parts) if parts else nothing(shape)

    for node in reversed(graph.nodes):
        for output in node.outputs:
            found[output] = of(output)
    return found


def passed_back(graph: Graph, node: Node, index: int, outputs: Sequence[Spread]) -> Spread:
    """Bounds on the part of dl/dx that flows back through the node, x being input `index`.

    Args:
        graph: For the shapes.
        node: Where x is read.
        index: Which of its inputs x is.
        outputs: The bounds on the gradients of its outputs.
    """
    shape = graph.tensors[node.inputs[index]].shape
    if not all(all(output.shape) for output in outputs):
        return full(shape)
    spread = _through(graph, node, index, shape, outputs)
    return full(shape) if spread is None else spread


def _through(
    graph: Graph, node: Node, index: int, shape: tuple[int, ...], outputs: Sequence[Spread]
) -> Spread | None:
    """The same, or None where nothing is known to limit it."""
    y = outputs[0]
    everywhere = range(len(y.shape))
    match node.op:
        case ops.Identity() | ops.Scale() | ops.Add() | ops.Sub():
            return summed_to(y, shape)
        case ops.Activation() | ops.Elementwise() | ops.Pow() | ops.Where():
            return summed_to(scaled(y, everywhere), shape)
        case ops.Mul() | ops.Div():
            return summed_to(scaled(y, _varying(graph, node, index, len(y.shape))), shape)
        case ops.BatchNorm(training=False):
            return y
        case ops.BatchNorm():
            return mixed(y, [a for a in everywhere if a != 1])
        case ops.LayerNorm(axes=axes) | ops.RmsNorm(axes=axes):
            return mixed(y, everywhere[-axes:])
        case ops.Softmax(axis=axis) | ops.LpNormalization(axis=axis):
            return mixed(y, [axis])
        case ops.LocalResponseNorm():
            return mixed(y, [1])
        case ops.Linear():
            return mapped(y, len(shape) - 1, shape[-1])
        case ops.Conv() | ops.ConvTranspose():
            return _convolved(node.op, y, shape)
        case ops.AveragePool() | ops.AdaptiveAveragePool() | ops.Resize():
            return _along_axes(y, shape)
        case ops.Reduce():
            return _reduced(node.op, y, shape)
        case ops.Reshape():
            return reshaped(y, shape)
        case ops.Transpose(permutation=permutation):
            return renamed(y, shape, lambda a: permutation[a])
        case ops.Expand():
            return summed_to(y, shape)
        case ops.Pad() | ops.Concat() | ops.Slice() | ops.Gather() | ops.Split():
            return _selected(graph, node, index, shape, outputs)
        case ops.MatMul():
            return _multiplied(graph, node, index, shape, y)
        case ops.Einsum():
            return _contracted(node, index, shape, y)
        case ops.Attention() if index == 0 and len(shape) == len(y.shape):
            # A row of the queries has influence on the same row of the output alone.
            supports = (*(ALL for _ in shape[:-2]), y.supports[-2], ALL)
            return unlimited(shape, supports)
        case _:
            return None


def _operand_shape(graph: Graph, node: Node, index: int) -> tuple[int, ...]:
    name = node.inputs[index]
    stored = graph.tensors.get(name) or graph.parameters[name]
    return stored.shape


def _varying(graph: Graph, node: Node, index: int, axes: int) -> list[int]:
    """Axes of the output along which the other factor varies."""
    if isinstance(node.op, ops.Div) and index == 1:
        return list(range(axes))  # the quotient itself is a factor of the derivative
    other = _operand_shape(graph, node, 1 - index)
    lead = axes - len(other)
    return [lead + a for a, size in enumerate(other) if size > 1]


def _convolved(op: ops.Conv | ops.ConvTranspose, y: Spread, shape: tuple[int, ...]) -> Spread:
    """dl/dx is a sum over taps of a map of the channels and one shift per spatial axis.

    In a block with the channels every tap is a map of its own; in one without, taps that shift its
    axes alike are one.
    """
    taps = prod(op.kernel)
    kernel = (1, 1, *op.kernel)
    supports = list(full(shape).supports)
    supports[0] = y.supports[0]
    if isinstance(op, ops.Conv):
        for a, (stride, begin, dilation) in enumerate(
            zip(op.stride, op.padding_begin, op.dilation, strict=True), start=2
        ):
            if y.supports[a] != ALL:
                mask = _read(y.supports[a], shape[a], kernel[a], stride, begin, dilation)
                supports[a] = short(mask, shape[a])
    terms = tuple(
        tuple(
            (block, rank * (taps if 1 in block else prod(kernel[a] for a in block)))
            for block, rank in term
        )
        for term in y.terms
    )
    return tidy(Spread(shape, tuple(supports), terms))


def _read(outputs: int, size: int, kernel: int, stride: int, begin: int, dilation: int) -> int:
    """Mask of the inputs that these outputs read along one axis."""
    mask = 0
    for position in range(outputs.bit_length()):
        if outputs >> position & 1:
            for tap in range(kernel):
                at = position * stride - begin + tap * dilation
                if 0 <= at < size:
                    mask |= 1 << at
    return mask


def _along_axes(y: Spread, shape: tuple[int, ...]) -> Spread:
    """A linear map along each spatial axis: pooling by averages, interpolation."""
    for axis in range(2, len(shape)):
        y = mapped(y, axis, shape[axis])
    return y


def _reduced(op: ops.Reduce, y: Spread, shape: tuple[int, ...]) -> Spread:
    """Repeated along the reduced axes."""
    kept = [a for a in range(len(shape)) if a not in op.axes]
    if op.keepdims:
        y = renamed(y, [y.shape[a] for a in kept], lambda a: kept.index(a) if a in kept else None)
    y = renamed(y, shape, lambda a: kept[a])
    return y if op.function in ("sum", "mean") else scaled(y, range(len(shape)))


def _selected(
    graph: Graph, node: Node, index: int, shape: tuple[int, ...], outputs: Sequence[Spread]
) -> Spread | None:
    """Copied elements: put back where they stood."""
    y = outputs[0]
    match node.op:
        case ops.Concat(axis=axis):
            start = sum(_operand_shape(graph, node, i)[axis] for i in range(index))
            mask = y.supports[axis]
            if mask != ALL:
                mask = mask >> start & ((1 << shape[axis]) - 1)
            return mapped(y, axis, shape[axis], mask)
        case ops.Split(axis=axis, sizes=sizes):
            parts, start = [], 0
            for part, size in zip(outputs, sizes, strict=True):
                mask = listed(part.supports[axis], size)
                parts.append(
                    mapped(part, axis, shape[axis], mask if mask == ALL else mask << start)
                )
                start += size
            return total(shape, parts)
        case ops.Slice() as op:
            for axis, (start, step) in enumerate(zip(op.starts, op.steps, strict=True)):
                mask = listed(y.supports[axis], y.shape[axis])
                y = mapped(y, axis, shape[axis], _put_back(mask, start, step))
            return y
        case ops.Gather(axis=axis, indices=indices) as op:
            y = reshaped(y, (*shape[:axis], len(indices), *shape[axis + 1 :]))
            chosen = {i for at, i in enumerate(indices) if y.supports[axis] >> at & 1}
            return mapped(y, axis, shape[axis], sum(1 << i for i in chosen))
        case ops.Pad():
            for axis, size in enumerate(shape):
                if y.shape[axis] != size:
                    y = mapped(y, axis, size)
            return y
        case _:
            return None


def _put_back(mask: int, start: int, step: int) -> int:
    if mask == ALL or (start, step) == (0, 1):
        return mask
    return sum(1 << (start + i * step) for i in range(mask.bit_length()) if mask >> i & 1)


def _multiplied(
    graph: Graph, node: Node, index: int, shape: tuple[int, ...], y: Spread
) -> Spread | None:
    """A product with a matrix is a linear map along one axis; with a stack of them, within it."""
    other = _operand_shape(graph, node, 1 - index)
    axis = len(shape) - 1 - index
    if len(shape) != len(y.shape) or len(shape) < 2:
        return None
    if len(other) == 2:
        return mapped(y, axis, shape[axis])
    if y.shape[:-2] != shape[:-2]:
        return None
    y = mapped(y, axis, shape[axis])
    return mixed(y, [axis])


def _contracted(node: Node, index: int, shape: tuple[int, ...], y: Spread) -> Spread | None:
    """dl/dx is the contraction of dl/dy with the other operand, if any."""
    if not isinstance(node.op, ops.Einsum):
        return None
    terms, _, output = node.op.equation.replace(" ", "").partition("->")
    operands = terms.split(",")
    own = operands[index]
    other = set("".join(operands[:index] + operands[index + 1 :]))
    if any(len(set(letters)) < len(letters) for letters in (own, output)) or not output:
        return None
    if not other:
        return renamed(y, shape, lambda a: own.index(output[a]) if output[a] in own else None)
    supports = [ALL] * len(shape)
    for a, letter in enumerate(own):
        if letter in output and y.shape[output.index(letter)] == shape[a]:
            supports[a] = y.supports[output.index(letter)]
    return unlimited(shape, tuple(supports))
