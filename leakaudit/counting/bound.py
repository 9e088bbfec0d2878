"""The rank bound of a layer, in integers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from leakaudit.counting import formulas
from leakaudit.counting.geometry import ConvolutionGeometry, product_counts
from leakaudit.findings import is_flagged


@dataclass(frozen=True, slots=True)
class LayerBound:
    """Sizes and bounds of one layer, all groups and the whole batch together.

    Attributes:
        unknowns: |X|.
        read: Unknowns that some output depends on.
        gradient_constraints: |A|, 0 for frozen weights.
        weight_constraints: |B|.
        gradient_rank: Bound on the rank of the gradient constraints alone.
        rank: Bound on the rank of both together.
        positions: L, output positions, batch included.
        taps: k.
    """

    unknowns: int
    read: int
    gradient_constraints: int
    weight_constraints: int
    gradient_rank: int
    rank: int
    positions: int
    taps: int

    @property
    def unread(self) -> int:
        """Unknowns that no output depends on: no equation can recover them."""
        return self.unknowns - self.read

    @property
    def flagged(self) -> bool:
        """Whether the equations may fix all that the layer reads."""
        return is_flagged(self.rank, self.read)


@lru_cache(maxsize=4096)
def layer_bound(layer: ConvolutionGeometry) -> LayerBound:
    """Count one layer.

    The bound is never below the rank of the dense matrix, and equals it for generic weights and
    gradients in all but rare shapes (see the tests for the measured share and the exceptions).
    """
    axes = layer.axes
    n, f = layer.channels // layer.groups, layer.filters // layer.groups
    k = prod(axis.kernel for axis in axes)
    L = prod(axis.positions for axis in axes)
    real_taps = [axis.real_taps() for axis in axes]
    live = prod(sum(times for taps, times in c.items() if taps) for c in real_taps)  # L'
    r_G = min(f, live) if layer.observed else 0
    if layer.gradient_rank is not None:
        r_G = min(r_G, layer.gradient_rank)
    r_w = min(f, n * k) if layer.outputs_known else 0

    read = a = 0
    for phases in itertools.product(*(axis.phases().values() for axis in axes)):
        pixels = prod(count for count, _ in phases)
        taps = product_counts(counter for _, counter in phases)
        read += pixels
        a += min(pixels, sum(times * min(r_G, reads) for reads, times in taps.items()))
    b = sum(times * min(r_w, n * taps) for taps, times in product_counts(real_taps).items())
    rank = formulas.group_rank_bound(
        min,
        read=n * read,
        gradient_rank=n * a,
        weight_equations=b,
        positions=live,
        rank_of_gradient=r_G,
        rank_of_weight=r_w,
        columns=n * k,
    )
    return LayerBound(
        unknowns=formulas.unknowns(layer.channels, (axis.size for axis in axes)),
        read=layer.groups * n * read,
        gradient_constraints=(
            formulas.gradient_constraints(layer.filters, n, k) if layer.observed else 0
        ),
        weight_constraints=(
            formulas.weight_constraints(layer.filters, L) if layer.outputs_known else 0
        ),
        gradient_rank=layer.groups * n * a,
        rank=layer.groups * rank,
        positions=L,
        taps=k,
    )
