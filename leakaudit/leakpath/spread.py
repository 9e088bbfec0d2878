"""What limits the rank of a gradient over positions: how it spreads on its way back.

Systems of equations that use dl/do (gradient constraints of a convolution, dl/dW = Gᵀ x of a dense
layer over tokens) have at most the rank of dl/do as a matrix, channels x positions. Averaging sends
every position the same gradient, a selection (class token, crop) sends most positions none, and a
narrow layer mixes few channels. This is a property of the network alone, whether or not the
gradient is known: dl/dx is a linear image of dl/dy, whatever the numbers are.

Two bounds are carried along, axis by axis. The support of an axis holds the indices whose slice may
differ from 0. And the gradient is a sum of terms, each with the rank of its unfoldings: for a block
of axes, the matrix (indices of the block) x (all other indices) has at most that rank. A linear map
along one axis of the block does not raise it, and the rank over a union of blocks is at most the
product of theirs (Kolda and Bader, Tensor decompositions and applications, 2009, section 2.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from leakaudit.graph import Graph, Node
from leakaudit.graph.operators import (
    Activation,
    AdaptiveAveragePool,
    Add,
    Attention,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Div,
    Einsum,
    Elementwise,
    Expand,
    Gather,
    Identity,
    LayerNorm,
    Linear,
    LocalResponseNorm,
    LpNormalization,
    MatMul,
    Mul,
    Pad,
    Pow,
    Reduce,
    Reshape,
    Resize,
    RmsNorm,
    Scale,
    Slice,
    Softmax,
    Split,
    Sub,
    Transpose,
    Where,
)

Term = tuple[tuple[frozenset[int], int], ...]  # a partition of the axes, with a rank per block
_MOST_TERMS = 8
# Supports of longer axes are taken to be full: a file may state any size, and a mask takes as much.
_MOST_INDICES = 1 << 16
_ALL = -1  # the mask of every index, whatever the size


@dataclass(frozen=True, slots=True)
class Spread:
    """Bounds on one gradient.

    Attributes:
        shape: Of the tensor.
        supports: Per axis a bit mask of the indices whose slice may differ from 0; -1 for all.
        terms: The gradient is the sum of as many tensors, each bounded by its term.
    """

    shape: tuple[int, ...]
    supports: tuple[int, ...]
    terms: tuple[Term, ...]

    def rank(self, axis: int) -> int:
        """Bound on the rank of the matrix (indices of `axis`) x (all other indices)."""
        rest = [a for a in range(len(self.shape)) if a != axis]
        by_support = min(self.counts([axis]), self.counts(rest))
        by_term = sum(
            min(self._within(term, {axis}), self._within(term, set(rest))) for term in self.terms
        )
        return min(by_support, by_term)

    def counts(self, axes: Iterable[int]) -> int:
        """How many index tuples of these axes may differ from 0."""
        return prod(
            self.shape[a] if self.supports[a] == _ALL else self.supports[a].bit_count()
            for a in axes
        )

    def _within(self, term: Term, axes: set[int]) -> int:
        return prod(
            min(rank if block <= axes else self.counts(block), self.counts(block & axes))
            for block, rank in term
            if block & axes
        )


def spreads(graph: Graph) -> Mapping[str, Spread]:
    """The bounds on dl/dt of every floating tensor t that something reads or the graph returns."""
    found: dict[str, Spread] = {}

    def of(tensor: str) -> Spread:
        shape = graph.tensors[tensor].shape
        if tensor in graph.outputs or not all(shape):
            return full(shape)
        parts = [
            passed_back(graph, use.node, use.index, [found[name] for name in use.node.outputs])
            for use in graph.uses[tensor]
        ]
        return _sum(shape, parts) if parts else _nothing(shape)

    for node in reversed(graph.nodes):
        for output in node.outputs:
            found[output] = of(output)
    return found


def full(shape: Sequence[int]) -> Spread:
    """No bound but the tensor's own sizes."""
    return _unlimited(tuple(shape), (_ALL,) * len(shape))


def _nothing(shape: Sequence[int]) -> Spread:
    return Spread(tuple(shape), tuple(0 for _ in shape), ())


def _unlimited(shape: tuple[int, ...], supports: tuple[int, ...]) -> Spread:
    """Bounded by its supports alone."""
    spread = Spread(shape, supports, ())
    term = tuple((frozenset([a]), spread.counts([a])) for a in range(len(shape)))
    return replace(spread, terms=(term,))


def _listed(mask: int, size: int) -> int:
    """The mask with a bit per index, where the size allows one."""
    return (1 << size) - 1 if mask == _ALL and size <= _MOST_INDICES else mask


def _short(mask: int, size: int) -> int:
    """The mask, or -1 where it holds every index or the axis is too long for one."""
    return _ALL if size > _MOST_INDICES or mask.bit_count() == size else mask


def _sum(shape: Sequence[int], parts: Sequence[Spread]) -> Spread:
    supports = list(parts[0].supports)
    for part in parts[1:]:
        supports = [a | b for a, b in zip(supports, part.supports, strict=True)]
    terms = tuple(term for part in parts for term in part.terms)
    return _tidy(Spread(tuple(shape), tuple(supports), terms))


def _tidy(spread: Spread) -> Spread:
    """Cap every rank by the support; one term that bounds nothing makes the others useless."""
    terms = [
        tuple(capped for block, rank in term for capped in _capped(spread, block, rank))
        for term in spread.terms
    ]
    bounds = [any(rank < spread.counts(block) for block, rank in term) for term in terms]
    if len(terms) > _MOST_TERMS or not all(bounds):
        return _unlimited(spread.shape, spread.supports)
    return replace(spread, terms=tuple(terms))


def _capped(spread: Spread, block: frozenset[int], rank: int) -> Term:
    """The block, or its axes one by one where its rank says no more than the sizes do."""
    rest = spread.counts(a for a in range(len(spread.shape)) if a not in block)
    if rank >= min(spread.counts(block), rest):
        return tuple((frozenset([a]), spread.counts([a])) for a in block)
    return ((block, rank),)


# Each of the following takes the bounds on one tensor and gives those on a linear image of it.


def _mapped(spread: Spread, axis: int, size: int, support: int | None = None) -> Spread:
    """A linear map along one axis."""
    shape, supports = list(spread.shape), list(spread.supports)
    shape[axis] = size
    supports[axis] = _ALL if support is None else _short(support, size)
    if not spread.supports[axis]:
        supports[axis] = 0
    return _tidy(Spread(tuple(shape), tuple(supports), spread.terms))


def _scaled(spread: Spread, axes: Iterable[int]) -> Spread:
    """Multiplied by a tensor that varies along `axes` only.

    For a block that has none of the axes, or all of them, that is a linear map on one side of its
    unfolding, which does not raise the rank; nothing is known of the others.
    """
    varying = frozenset(axes)
    terms = tuple(
        tuple(
            (block, rank if not block & varying or varying <= block else spread.counts(block))
            for block, rank in term
        )
        for term in spread.terms
    )
    return _tidy(replace(spread, terms=terms))


def _mixed(spread: Spread, axes: Iterable[int]) -> Spread:
    """Any map within the indices of `axes`, different for every index of the others."""
    supports = list(spread.supports)
    for axis in axes:
        supports[axis] = _ALL
    return _unlimited(spread.shape, tuple(supports))


def _renamed(spread: Spread, shape: Sequence[int], place: Callable[[int], int | None]) -> Spread:
    """Axis a becomes place(a), or is summed over (None); axes that are new are constant."""
    moved = {a: place(a) for a in range(len(spread.shape))}
    supports = [_ALL] * len(shape)
    for old, new in moved.items():
        if new is not None:
            supports[new] = spread.supports[old]
    if not all(spread.supports):
        supports = [0] * len(supports)
    terms = []
    for term in spread.terms:
        blocks = [
            (frozenset(new for a in block if (new := moved[a]) is not None), rank)
            for block, rank in term
        ]
        kept = frozenset().union(*(block for block, _ in blocks))
        new_axes = [(frozenset([a]), 1) for a in range(len(shape)) if a not in kept]
        terms.append((*((block, rank) for block, rank in blocks if block), *new_axes))
    return _tidy(Spread(tuple(shape), tuple(supports), tuple(terms)))


def _summed_to(spread: Spread, shape: Sequence[int]) -> Spread:
    """Summed over what numpy's broadcasting repeated."""
    lead = len(spread.shape) - len(shape)
    if lead < 0:
        return full(shape)

    def place(a: int) -> int | None:
        return None if a < lead or shape[a - lead] < spread.shape[a] else a - lead

    if spread.shape == tuple(shape):
        return spread
    return _renamed(spread, shape, place)


def _reshaped(spread: Spread, shape: Sequence[int]) -> Spread:
    """The same elements in row-major order under another shape."""
    groups = _matched(spread.shape, shape)
    supports = [1 if all(spread.supports) else 0] * len(shape)
    for old, new in groups:
        for axis, mask in zip(new, _reshaped_supports(spread, shape, old, new), strict=True):
            supports[axis] = mask
    terms = tuple(_reshaped_term(term, spread, shape, groups) for term in spread.terms)
    return _tidy(Spread(tuple(shape), tuple(supports), terms))


def _matched(
    old: Sequence[int], new: Sequence[int]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Smallest runs of axes (longer than 1) that hold the same elements before and after."""
    left = [a for a, size in enumerate(old) if size > 1]
    right = [a for a, size in enumerate(new) if size > 1]
    groups = []
    while left:
        a, b = [left.pop(0)], [right.pop(0)]
        while (before := prod(old[i] for i in a)) != (after := prod(new[i] for i in b)):
            if before < after:
                a.append(left.pop(0))
            else:
                b.append(right.pop(0))
        groups.append((tuple(a), tuple(b)))
    return groups


def _reshaped_supports(
    spread: Spread, shape: Sequence[int], old: Sequence[int], new: Sequence[int]
) -> list[int]:
    if len(old) == len(new) == 1:
        return [spread.supports[old[0]]]
    sizes = [spread.shape[a] for a in old]
    if prod(sizes) > _MOST_INDICES or all(spread.supports[a] == _ALL for a in old):
        return [_ALL] * len(new)
    flat = [0]
    for axis, size in zip(old, sizes, strict=True):
        inside = [i for i in range(size) if spread.supports[axis] >> i & 1]
        flat = [at * size + i for at in flat for i in inside]
    masks = []
    stride = prod(shape[a] for a in new)
    for axis in new:
        stride //= shape[axis]
        mask = sum(1 << i for i in {at // stride % shape[axis] for at in flat})
        masks.append(_short(mask, shape[axis]))
    return masks


def _reshaped_term(
    term: Term,
    spread: Spread,
    shape: Sequence[int],
    groups: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
) -> Term:
    """Blocks that share a run of axes become one; a run that nothing limits stays so."""
    blocks: list[tuple[set[int], set[int], int]] = [
        (set(block), set(), rank) for block, rank in term
    ]
    result: list[tuple[frozenset[int], int]] = []
    for old, new in groups:
        touched = [entry for entry in blocks if entry[0] & set(old)]
        free = all(
            entry[0] <= set(old) and len(entry[0]) == 1 and entry[2] == spread.counts(entry[0])
            for entry in touched
        )
        if free and len(old) + len(new) > 2:
            blocks = [entry for entry in blocks if entry not in touched]
            result.extend((frozenset([a]), shape[a]) for a in new)
            continue
        blocks = [entry for entry in blocks if entry not in touched]
        blocks.append(
            (
                set().union(*(entry[0] for entry in touched)),
                set(new).union(*(entry[1] for entry in touched)),
                prod(entry[2] for entry in touched),
            )
        )
    result.extend((frozenset(new), rank) for _, new, rank in blocks if new)
    held = frozenset().union(*(block for block, _ in result))
    result.extend((frozenset([a]), 1) for a in range(len(shape)) if a not in held)
    return tuple(result)


# What an operator passes back to one of its inputs.


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
        case Identity() | Scale() | Add() | Sub():
            return _summed_to(y, shape)
        case Activation() | Elementwise() | Pow() | Where():
            return _summed_to(_scaled(y, everywhere), shape)
        case Mul() | Div():
            return _summed_to(_scaled(y, _varying(graph, node, index, len(y.shape))), shape)
        case BatchNorm(training=False):
            return y
        case BatchNorm():
            return _mixed(y, [a for a in everywhere if a != 1])
        case LayerNorm(axes=axes) | RmsNorm(axes=axes):
            return _mixed(y, everywhere[-axes:])
        case Softmax(axis=axis) | LpNormalization(axis=axis):
            return _mixed(y, [axis])
        case LocalResponseNorm():
            return _mixed(y, [1])
        case Linear():
            return _mapped(y, len(shape) - 1, shape[-1])
        case Conv() | ConvTranspose():
            return _convolved(node.op, y, shape)
        case AveragePool() | AdaptiveAveragePool() | Resize():
            return _along_axes(y, shape)
        case Reduce():
            return _reduced(node.op, y, shape)
        case Reshape():
            return _reshaped(y, shape)
        case Transpose(permutation=permutation):
            return _renamed(y, shape, lambda a: permutation[a])
        case Expand():
            return _summed_to(y, shape)
        case Pad() | Concat() | Slice() | Gather() | Split():
            return _selected(graph, node, index, shape, outputs)
        case MatMul():
            return _multiplied(graph, node, index, shape, y)
        case Einsum():
            return _contracted(node, index, shape, y)
        case Attention() if index == 0 and len(shape) == len(y.shape):
            # A row of the queries has influence on the same row of the output alone.
            supports = (*(_ALL for _ in shape[:-2]), y.supports[-2], _ALL)
            return _unlimited(shape, supports)
        case _:
            return None


def _operand_shape(graph: Graph, node: Node, index: int) -> tuple[int, ...]:
    name = node.inputs[index]
    stored = graph.tensors.get(name) or graph.parameters[name]
    return stored.shape


def _varying(graph: Graph, node: Node, index: int, axes: int) -> list[int]:
    """Axes of the output along which the other factor varies."""
    if isinstance(node.op, Div) and index == 1:
        return list(range(axes))  # the quotient itself is a factor of the derivative
    other = _operand_shape(graph, node, 1 - index)
    lead = axes - len(other)
    return [lead + a for a, size in enumerate(other) if size > 1]


def _convolved(op: Conv | ConvTranspose, y: Spread, shape: tuple[int, ...]) -> Spread:
    """dl/dx is a sum over taps of a map of the channels and one shift per spatial axis.

    In a block with the channels every tap is a map of its own; in one without, taps that shift its
    axes alike are one.
    """
    taps = prod(op.kernel)
    kernel = (1, 1, *op.kernel)
    supports = list(full(shape).supports)
    supports[0] = y.supports[0]
    if isinstance(op, Conv):
        for a, (stride, begin, dilation) in enumerate(
            zip(op.stride, op.padding_begin, op.dilation, strict=True), start=2
        ):
            if y.supports[a] != _ALL:
                mask = _read(y.supports[a], shape[a], kernel[a], stride, begin, dilation)
                supports[a] = _short(mask, shape[a])
    terms = tuple(
        tuple(
            (block, rank * (taps if 1 in block else prod(kernel[a] for a in block)))
            for block, rank in term
        )
        for term in y.terms
    )
    return _tidy(Spread(shape, tuple(supports), terms))


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
        y = _mapped(y, axis, shape[axis])
    return y


def _reduced(op: Reduce, y: Spread, shape: tuple[int, ...]) -> Spread:
    """Repeated along the reduced axes."""
    kept = [a for a in range(len(shape)) if a not in op.axes]
    if op.keepdims:
        y = _renamed(y, [y.shape[a] for a in kept], lambda a: kept.index(a) if a in kept else None)
    y = _renamed(y, shape, lambda a: kept[a])
    return y if op.function in ("sum", "mean") else _scaled(y, range(len(shape)))


def _selected(
    graph: Graph, node: Node, index: int, shape: tuple[int, ...], outputs: Sequence[Spread]
) -> Spread | None:
    """Copied elements: put back where they stood."""
    y = outputs[0]
    match node.op:
        case Concat(axis=axis):
            start = sum(_operand_shape(graph, node, i)[axis] for i in range(index))
            mask = y.supports[axis]
            if mask != _ALL:
                mask = mask >> start & ((1 << shape[axis]) - 1)
            return _mapped(y, axis, shape[axis], mask)
        case Split(axis=axis, sizes=sizes):
            parts, start = [], 0
            for part, size in zip(outputs, sizes, strict=True):
                mask = _listed(part.supports[axis], size)
                parts.append(
                    _mapped(part, axis, shape[axis], mask if mask == _ALL else mask << start)
                )
                start += size
            return _sum(shape, parts)
        case Slice() as op:
            for axis, (start, step) in enumerate(zip(op.starts, op.steps, strict=True)):
                mask = _listed(y.supports[axis], y.shape[axis])
                y = _mapped(y, axis, shape[axis], _put_back(mask, start, step))
            return y
        case Gather(axis=axis, indices=indices) as op:
            y = _reshaped(y, (*shape[:axis], len(indices), *shape[axis + 1 :]))
            chosen = {i for at, i in enumerate(indices) if y.supports[axis] >> at & 1}
            return _mapped(y, axis, shape[axis], sum(1 << i for i in chosen))
        case Pad():
            for axis, size in enumerate(shape):
                if y.shape[axis] != size:
                    y = _mapped(y, axis, size)
            return y
        case _:
            return None


def _put_back(mask: int, start: int, step: int) -> int:
    if mask == _ALL or (start, step) == (0, 1):
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
        return _mapped(y, axis, shape[axis])
    if y.shape[:-2] != shape[:-2]:
        return None
    y = _mapped(y, axis, shape[axis])
    return _mixed(y, [axis])


def _contracted(node: Node, index: int, shape: tuple[int, ...], y: Spread) -> Spread | None:
    """dl/dx is the contraction of dl/dy with the other operand, if any."""
    if not isinstance(node.op, Einsum):
        return None
    terms, _, output = node.op.equation.replace(" ", "").partition("->")
    operands = terms.split(",")
    own = operands[index]
    other = set("".join(operands[:index] + operands[index + 1 :]))
    if any(len(set(letters)) < len(letters) for letters in (own, output)) or not output:
        return None
    if not other:
        return _renamed(y, shape, lambda a: own.index(output[a]) if output[a] in own else None)
    supports = [_ALL] * len(shape)
    for a, letter in enumerate(own):
        if letter in output and y.shape[output.index(letter)] == shape[a]:
            supports[a] = y.supports[output.index(letter)]
    return _unlimited(shape, tuple(supports))
