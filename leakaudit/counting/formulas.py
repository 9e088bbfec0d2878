"""The counts as formulas: one derivation, used with integers and with sympy symbols.

Every function takes numbers or sympy expressions. The names are those of the derivation: N input
channels, F filters, n = N/g, f = F/g, k taps of a kernel, L output positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

from leakaudit.counting.geometry import Quantity


def unknowns(N: Quantity, sizes: Iterable[Quantity]) -> Quantity:
    """|X| = N · prod(H_i)."""
    return N * prod(sizes)


def gradient_constraints(F: Quantity, n: Quantity, k: Quantity) -> Quantity:
    """|A| = F · n · k: one equation per weight gradient (R-CONV, WISE 2024)."""
    return F * n * k


def weight_constraints(F: Quantity, L: Quantity) -> Quantity:
    """|B| = F · L: one equation per known pre-activation output (R-GAP, ICLR 2021)."""
    return F * L


def group_rank_bound(
    minimum: Callable[..., Quantity],
    *,
    read: Quantity,
    gradient_rank: Quantity,
    weight_equations: Quantity,
    positions: Quantity,
    rank_of_gradient: Quantity,
    rank_of_weight: Quantity,
    columns: Quantity,
) -> Quantity:
    """Upper bound on the rank of both sets of equations of one group.

    Knowing G·P and P·wᵀ leaves (L' - r_G)·(n·k - r_w) entries of the patch matrix P free, and no
    set of equations determines more than what it reads.

    Args:
        minimum: `min` or `sympy.Min`.
        read: Unknowns that some tap reads.
        gradient_rank: n·a, the bound for the gradient constraints alone.
        weight_equations: b, the bound for the weight constraints alone.
        positions: L', output positions that read a real pixel.
        rank_of_gradient: r_G = min(f, L').
        rank_of_weight: r_w = min(f, n·k).
        columns: n·k, columns of the patch matrix.
    """
    return minimum(
        read,
        gradient_rank + (positions - rank_of_gradient) * rank_of_weight,
        minimum(read, weight_equations) + (columns - rank_of_weight) * rank_of_gradient,
        gradient_rank + weight_equations,
    )


def short_rank_bound(
    n: Quantity, k: Quantity, L: Quantity, rank_of_gradient: Quantity, rank_of_weight: Quantity
) -> Quantity:
    """The bound of one group without padding and stride effects: n·k·r_G + L·r_w - r_G·r_w."""
    return n * k * rank_of_gradient + L * rank_of_weight - rank_of_gradient * rank_of_weight
