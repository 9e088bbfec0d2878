"""Bounds on the rank of a gradient over positions, and what linear maps make of them.

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

Term = tuple[tuple[frozenset[int], int], ...]  # a partition of the axes, with a rank per block
_MOST_TERMS = 8
# Supports of longer axes are taken to be full: a file may state any size, and a mask takes as much.
_MOST_INDICES = 1 << 16
ALL = -1  # the mask of every index, whatever the size


@dataclass(frozen=True, slots=True)
class GradientRank:
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
            self.shape[a] if self.supports[a] == ALL else self.supports[a].bit_count() for a in axes
        )

    def _within(self, term: Term, axes: set[int]) -> int:
        return prod(
            min(rank if block <= axes else self.counts(block), self.counts(block & axes))
            for block, rank in term
            if block & axes
        )


def full(shape: Sequence[int]) -> GradientRank:
    """No bound but the tensor's own sizes."""
    return unlimited(tuple(shape), (ALL,) * len(shape))


def nothing(shape: Sequence[int]) -> GradientRank:
    """The gradient of what no output depends on: 0."""
    return GradientRank(tuple(shape), tuple(0 for _ in shape), ())


def unlimited(shape: tuple[int, ...], supports: tuple[int, ...]) -> GradientRank:
    """Bounded by its supports alone."""
    bound = GradientRank(shape, supports, ())
    term = tuple((frozenset([a]), bound.counts([a])) for a in range(len(shape)))
    return replace(bound, terms=(term,))


def listed(mask: int, size: int) -> int:
    """The mask with a bit per index, where the size allows one."""
    return (1 << size) - 1 if mask == ALL and size <= _MOST_INDICES else mask


def short(mask: int, size: int) -> int:
    """The mask, or -1 where it holds every index or the axis is too long for one."""
    return ALL if size > _MOST_INDICES or mask.bit_count() == size else mask


def total(shape: Sequence[int], parts: Sequence[GradientRank]) -> GradientRank:
    """A sum of at least one gradient, all of this shape."""
    supports = list(parts[0].supports)
    for part in parts[1:]:
        supports = [a | b for a, b in zip(supports, part.supports, strict=True)]
    terms = tuple(term for part in parts for term in part.terms)
    return tidy(GradientRank(tuple(shape), tuple(supports), terms))


def tidy(bound: GradientRank) -> GradientRank:
    """Cap every rank by the support; one term that bounds nothing makes the others useless."""
    terms = [
        tuple(capped for block, rank in term for capped in _capped(bound, block, rank))
        for term in bound.terms
    ]
    bounds = [any(rank < bound.counts(block) for block, rank in term) for term in terms]
    if len(terms) > _MOST_TERMS or not all(bounds):
        return unlimited(bound.shape, bound.supports)
    return replace(bound, terms=tuple(terms))


def _capped(bound: GradientRank, block: frozenset[int], rank: int) -> Term:
    """The block, or its axes one by one where its rank says no more than the sizes do."""
    rest = bound.counts(a for a in range(len(bound.shape)) if a not in block)
    if rank >= min(bound.counts(block), rest):
        return tuple((frozenset([a]), bound.counts([a])) for a in block)
    return ((block, rank),)


# Each of the following takes the bounds on one tensor and gives those on a linear image of it.


def mapped(bound: GradientRank, axis: int, size: int, support: int | None = None) -> GradientRank:
    """A linear map along one axis, to `size` indices; `support` says which may differ from 0."""
    shape, supports = list(bound.shape), list(bound.supports)
    shape[axis] = size
    supports[axis] = ALL if support is None else short(support, size)
    if not bound.supports[axis]:
        supports[axis] = 0
    return tidy(GradientRank(tuple(shape), tuple(supports), bound.terms))


def scaled(bound: GradientRank, axes: Iterable[int]) -> GradientRank:
    """Multiplied by a tensor that varies along `axes` only.

    For a block that has none of the axes, or all of them, that is a linear map on one side of its
    unfolding, which does not raise the rank; nothing is known of the others.
    """
    varying = frozenset(axes)
    terms = tuple(
        tuple(
            (block, rank if not block & varying or varying <= block else bound.counts(block))
            for block, rank in term
        )
        for term in bound.terms
    )
    return tidy(replace(bound, terms=terms))


def mixed(bound: GradientRank, axes: Iterable[int]) -> GradientRank:
    """Any map within the indices of `axes`, different for every index of the others."""
    supports = list(bound.supports)
    for axis in axes:
        supports[axis] = ALL
    return unlimited(bound.shape, tuple(supports))


def renamed(
    bound: GradientRank, shape: Sequence[int], place: Callable[[int], int | None]
) -> GradientRank:
    """Axis a becomes place(a), or is summed over (None); axes that are new are constant."""
    moved = {a: place(a) for a in range(len(bound.shape))}
    supports = [ALL] * len(shape)
    for old, new in moved.items():
        if new is not None:
            supports[new] = bound.supports[old]
    if not all(bound.supports):
        supports = [0] * len(supports)
    terms = []
    for term in bound.terms:
        blocks = [
            (frozenset(new for a in block if (new := moved[a]) is not None), rank)
            for block, rank in term
        ]
        kept = frozenset().union(*(block for block, _ in blocks))
        new_axes = [(frozenset([a]), 1) for a in range(len(shape)) if a not in kept]
        terms.append((*((block, rank) for block, rank in blocks if block), *new_axes))
    return tidy(GradientRank(tuple(shape), tuple(supports), tuple(terms)))


def summed_to(bound: GradientRank, shape: Sequence[int]) -> GradientRank:
    """Summed over what numpy's broadcasting repeated."""
    lead = len(bound.shape) - len(shape)
    if lead < 0:
        return full(shape)

    def place(a: int) -> int | None:
        return None if a < lead or shape[a - lead] < bound.shape[a] else a - lead

    if bound.shape == tuple(shape):
        return bound
    return renamed(bound, shape, place)


def reshaped(bound: GradientRank, shape: Sequence[int]) -> GradientRank:
    """The same elements in row-major order under another shape."""
    groups = _matched(bound.shape, shape)
    supports = [1 if all(bound.supports) else 0] * len(shape)
    for old, new in groups:
        for axis, mask in zip(new, _reshaped_supports(bound, shape, old, new), strict=True):
            supports[axis] = mask
    terms = tuple(_reshaped_term(term, bound, shape, groups) for term in bound.terms)
    return tidy(GradientRank(tuple(shape), tuple(supports), terms))


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
    bound: GradientRank, shape: Sequence[int], old: Sequence[int], new: Sequence[int]
) -> list[int]:
    if len(old) == len(new) == 1:
        return [bound.supports[old[0]]]
    sizes = [bound.shape[a] for a in old]
    if prod(sizes) > _MOST_INDICES or all(bound.supports[a] == ALL for a in old):
        return [ALL] * len(new)
    flat = [0]
    for axis, size in zip(old, sizes, strict=True):
        inside = [i for i in range(size) if bound.supports[axis] >> i & 1]
        flat = [at * size + i for at in flat for i in inside]
    masks = []
    stride = prod(shape[a] for a in new)
    for axis in new:
        stride //= shape[axis]
        mask = sum(1 << i for i in {at // stride % shape[axis] for at in flat})
        masks.append(short(mask, shape[axis]))
    return masks


def _reshaped_term(
    term: Term,
    bound: GradientRank,
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
            entry[0] <= set(old) and len(entry[0]) == 1 and entry[2] == bound.counts(entry[0])
            for entry in touched
        )
        blocks = [entry for entry in blocks if entry not in touched]
        if free and len(old) + len(new) > 2:
            result.extend((frozenset([a]), shape[a]) for a in new)
            continue
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


def gradient_ranks(graph: Graph) -> Mapping[str, GradientRank]:
    """The bounds on dl/dt of every tensor t that a node makes, by its name.

    They hold for any weights and any loss, and are worked out from the outputs towards the inputs.
    """
    found: dict[str, GradientRank] = {}

    def of(tensor: str) -> GradientRank:
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


def passed_back(
    graph: Graph, node: Node, index: int, outputs: Sequence[GradientRank]
) -> GradientRank:
    """Bounds on the part of dl/dx that flows back through the node, x being input `index`.

    `outputs` are the bounds on the gradients of its outputs.
    """
    shape = graph.tensors[node.inputs[index]].shape
    if not all(all(output.shape) for output in outputs):
        return full(shape)
    bound = node.op.gradient_bound(graph, node, index, outputs)
    return full(shape) if bound is None else bound
