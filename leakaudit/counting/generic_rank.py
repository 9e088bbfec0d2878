"""The generic rank of one convolution's equations, exactly, where the bound leaves it open."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

from leakaudit.counting.bound import layer_bound
from leakaudit.counting.geometry import ConvolutionGeometry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from leakaudit.counting.modular import Residues

    Indices = NDArray[np.intp]

# What is larger is not computed. A matrix of 8,000 x 4,000 passes both limits and takes up to
# 850 MiB in all and 4 to 9 s on one core.
MOST_ENTRIES = 1 << 25
MOST_WORK = 1 << 37  # multiplications: rows times columns times the smaller of them
MOST_PHASES = 4096


@lru_cache(maxsize=512)
def generic_rank(
    layer: ConvolutionGeometry, seed: int = 0, outputs: tuple[int, ...] | None = None
) -> int | None:
    """The rank of a layer's equations for all but special weights and gradients.

    The unknowns x meet gradient constraints dl/dw = G·P(x), if they are `observed`, and weight
    constraints P(x)·wᵀ, if `outputs_known`. The coefficients are entries of G and of w. With these
    as independent variables, the largest minor that is not the zero polynomial has as many rows as
    the generic rank. No weights and gradients give a higher rank, almost all give this one.

    Independent they may be, although G follows from w, x and the layers above: any dependence
    makes G and w more special, and lowers the rank if it changes it. `gradient_rank` = r is
    modelled by G = U·V with an inner dimension of r, U and V generic. A G that is more special
    than this (averaging sends every position the same row, and not any one row) may have less.

    The variables are replaced by random residues modulo a prime p. A minor that is not 0 there is
    not the zero polynomial: the result is never above the generic rank. A minor of r rows that is
    not the zero polynomial modulo p has degree r, and vanishes with a probability of at most r / p
    (Schwartz, Fast probabilistic algorithms for verification of polynomial identities, J. ACM 27,
    1980). Where the first instance reaches the bound of `layer_bound`, that settles it; otherwise
    the larger of two instances with different primes near 2^23 counts. It is too low with a
    probability of at most (r / 2^23)², 2.3e-7 for r = 4000, or where a prime divides every
    coefficient of every such minor, which no layer tried has shown.

    Structure keeps the matrices small. Groups are alike: one is computed. The gradient constraints
    are the same matrix for every channel, and fall apart by stride phase: their null space Z is
    computed per phase. Then rank = n · rank(A) + rank(B·Z), for the weight constraints B. On Z,
    G·o = 0 holds for the outputs o = P·wᵀ of every filter: those at r positions follow from the
    others, and are left out.

    Args:
        layer: A convolution, or a dense layer as one of kernel 1.
        seed: Of the random instances.
        outputs: Per axis a bit mask of the output positions that anything above reads, -1 for all;
            None: all. At the others dl/do is 0 and no output is known.

    Returns:
        The rank, all groups and the whole batch together. None: too large to compute, see
        `MOST_ENTRIES`, `MOST_WORK` and `MOST_PHASES`.
    """
    from leakaudit.counting.modular import PRIMES

    bound = layer_bound(layer).rank
    highest = 0
    for prime in PRIMES:
        if highest == bound:
            break
        rank = _rank_of_group(layer, prime, seed, outputs)
        if rank is None:
            return None
        highest = max(highest, layer.groups * rank)
    return highest


@dataclass(frozen=True, slots=True)
class _Phase:
    """The pixels of one stride phase, in one channel.

    Attributes:
        taps: The taps that read them, shape (taps,).
        pixels: Per output position and tap the pixel's place among them, shape (L', taps); -1:
            none is read.
        count: How many they are.
    """

    taps: Indices
    pixels: Indices
    count: int

    def constraints(self, r_G: int) -> int:
        """Gradient constraints, without those of a tap that follow from its others."""
        reads = (self.pixels >= 0).sum(axis=0)
        return int(reads.clip(max=r_G).sum())


def _rank_of_group(
    layer: ConvolutionGeometry, prime: int, seed: int, outputs: tuple[int, ...] | None
) -> int | None:
    """The rank of one random instance of one group; None where it is too large."""
    import numpy as np

    from leakaudit.counting.modular import random_residues, rank_mod_p

    n, f = layer.channels // layer.groups, layer.filters // layer.groups
    k = prod(axis.kernel for axis in layer.axes)
    if prod(axis.positions for axis in layer.axes) * k > MOST_ENTRIES:
        return None
    reads = _reads(layer, outputs or (-1,) * len(layer.axes))
    r_G = min(f, len(reads)) if layer.observed else 0
    if layer.gradient_rank is not None:
        r_G = min(r_G, layer.gradient_rank)
    r_w = min(f, n * k) if layer.outputs_known else 0
    # Weight constraints that add nothing: those at r_G positions, which follow from the others, and
    # at each position those of more filters than it reads unknowns.
    useful = np.minimum(r_w, n * (reads >= 0).sum(axis=1))
    positions = np.sort(np.argsort(-useful, kind="stable")[r_G:])
    phases = _phases(layer, reads)
    least_free = n * sum(max(0, p.count - p.constraints(r_G)) for p in phases)
    if (
        len(phases) > MOST_PHASES
        or max(r_G * len(reads), r_w * n * k) > MOST_ENTRIES
        or any(phase.count * r_G * len(phase.taps) > MOST_ENTRIES for phase in phases)
        or sum(_work(p.count, min(p.count, p.constraints(r_G))) for p in phases) > MOST_WORK
        or not _fits(r_w * len(positions), least_free)
    ):
        return None

    generator = np.random.default_rng((seed, prime))
    # The rows of G = U·V span those of V, which stands for G here: U has full column rank.
    null_spaces = _null_spaces(phases, random_residues(generator, (r_G, len(reads)), prime), prime)
    free = n * sum(map(len, null_spaces))
    rank = n * sum(phase.count for phase in phases) - free
    if free == 0 or r_w == 0:
        return rank
    if not _fits(r_w * len(positions), free):
        return None
    weights = random_residues(generator, (r_w, n, k), prime)
    rows = _weight_constraints(weights, phases, null_spaces, positions, prime)
    rows = rows[(np.arange(r_w)[:, None] < useful[positions]).ravel()]
    return rank + rank_mod_p(rows, prime)


def _reads(layer: ConvolutionGeometry, outputs: tuple[int, ...]) -> Indices:
    """The pixel that each tap reads at each output position, -1 in the padding.

    Returns:
        Indices into one channel, batch included. Shape (L', k): positions outside of `outputs` and
        those that read no pixel are left out.
    """
    import numpy as np

    reads = np.zeros((1, 1), dtype=np.intp)
    for axis, mask in zip(layer.axes, outputs, strict=True):
        used = [position for position in range(axis.positions) if mask >> position & 1]
        tap = np.arange(axis.kernel)
        first = np.array(used, dtype=np.intp)[:, None] * axis.stride - axis.padding_begin
        pixel = first + tap * axis.dilation
        real = (pixel >= 0) & (pixel < axis.size)
        both = (reads >= 0)[:, None, :, None] & real[:, None]
        joined = np.where(both, reads[:, None, :, None] * axis.size + pixel[:, None], -1)
        reads = joined.reshape(len(reads) * len(used), reads.shape[1] * axis.kernel)
    return reads[(reads >= 0).any(axis=1)]


def _phases(layer: ConvolutionGeometry, reads: Indices) -> list[_Phase]:
    """The stride phases that read a pixel; `reads` as `_reads` gives it."""
    import numpy as np

    per_axis = [[axis.phase(tap) for tap in range(axis.kernel)] for axis in layer.axes]
    of_tap: dict[tuple[int, ...], list[int]] = {}
    for tap, phase in enumerate(itertools.product(*per_axis)):
        of_tap.setdefault(phase, []).append(tap)
    phases = []
    for taps in of_tap.values():
        read = np.unique(reads[:, taps])
        read = read[read >= 0]
        pixels = np.where(reads[:, taps] >= 0, np.searchsorted(read, reads[:, taps]), -1)
        if len(read):
            phases.append(_Phase(np.array(taps), pixels, len(read)))
    return phases


def _null_spaces(phases: Sequence[_Phase], G: Residues, prime: int) -> list[Residues]:
    """What the gradient constraints of each phase leave open.

    Args:
        phases: The phases.
        G: Rows that span those of the output gradient, shape (r_G, L').
        prime: Below 2^23.

    Returns:
        A basis vector per row, an entry per pixel of the phase.
    """
    import numpy as np

    from leakaudit.counting.modular import left_null_space

    def null_space(phase: _Phase) -> Residues:
        # One column per constraint, by filter: the first filters may be enough.
        reads = phase.pixels >= 0
        transposed = np.zeros((phase.count, len(G), len(phase.taps)))
        position, tap = np.nonzero(reads)
        transposed[phase.pixels[position, tap], :, tap] = G[:, position].T
        # A tap that reads a pixel at few positions knows no more than as many filters tell.
        useful = np.arange(len(G))[:, None] < reads.sum(axis=0)
        return left_null_space(transposed.reshape(phase.count, -1)[:, useful.ravel()], prime)

    # Patches that do not overlap are all alike.
    known: dict[tuple[int, bytes], Residues] = {}
    for phase in phases:
        key = (len(phase.taps), phase.pixels.tobytes())
        if key not in known:
            known[key] = null_space(phase)
    return [known[len(phase.taps), phase.pixels.tobytes()] for phase in phases]


def _weight_constraints(
    weights: Residues,
    phases: Sequence[_Phase],
    null_spaces: Sequence[Residues],
    positions: Indices,
    prime: int,
) -> Residues:
    """The weight constraints at some output positions, on the null space of the phases.

    Args:
        weights: Shape (r_w, n, k).
        phases: All phases.
        null_spaces: Theirs, see `_null_spaces`.
        positions: Output positions.
        prime: Below 2^23.

    Returns:
        One row per filter and position, one column per channel and basis vector.
    """
    import numpy as np

    from leakaudit.counting.modular import product

    r_w, n, _ = weights.shape
    free = sum(map(len, null_spaces))
    rows = np.empty((r_w, len(positions), n, free))
    end = 0
    for phase, null_space in zip(phases, null_spaces, strict=True):
        z, k = len(null_space), len(phase.taps)
        if z == 0:
            continue
        begin, end = end, end + z
        filters = weights[:, :, phase.taps].reshape(r_w * n, k)
        # The last place stands for the padding: what a tap reads there is 0.
        basis = np.hstack([null_space, np.zeros((z, 1))]).T
        step = max(1, (1 << 20) // (k * z))  # positions at once, so that patches stay small
        for first in range(0, len(positions), step):
            some = slice(first, first + step)
            patches = basis[phase.pixels[positions[some]]]  # shape: (some, k, z)
            columns = patches.transpose(1, 0, 2).reshape(k, -1)
            outputs = product(filters, columns, prime).reshape(r_w, n, -1, z)
            rows[:, some, :, begin:end] = outputs.transpose(0, 2, 1, 3)
    return rows.reshape(r_w * len(positions), n * free)


def _fits(rows: int, columns: int) -> bool:
    return rows * columns <= MOST_ENTRIES and _work(rows, columns) <= MOST_WORK


def _work(rows: int, columns: int) -> int:
    """Multiplications of an elimination, at most."""
    return rows * columns * min(rows, columns)
