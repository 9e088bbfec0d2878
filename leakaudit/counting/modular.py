"""Rank and null space modulo a prime, by blocked elimination in float64.

Residues are stored as integers between -p/2 and p/2 in float64 arrays, so that BLAS multiplies
them. For p below 2^23 a product is below 2^44, and the sum of some 500 of them is exact: matrix
products run at full speed and are reduced once per 500 terms (Dumas, Giorgi and Pernet, Dense
linear algebra over word-size prime fields, ACM TOMS 35, 2008). Importing this module imports numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Residues = NDArray[np.float64]

PRIMES = (8388593, 8388587)  # the two largest below 2^23
_PANEL = 16  # columns that are eliminated one by one
_SLAB = 1 << 18  # elements of a product that are computed at once: they stay in the cache


def random_residues(
    generator: np.random.Generator, shape: tuple[int, ...], prime: int = PRIMES[0]
) -> Residues:
    """Uniform residues modulo the prime."""
    return generator.integers(-(prime // 2), prime // 2 + 1, shape).astype(np.float64)


def product(left: Residues, right: Residues, prime: int = PRIMES[0]) -> Residues:
    """left @ right modulo the prime; shapes (m, k) and (k, n) give (m, n)."""
    result = np.zeros((left.shape[0], right.shape[1]))
    _add_product(result, left, right, prime)
    return result


def rank_mod_p(matrix: Residues, prime: int = PRIMES[0]) -> int:
    """The rank of a matrix of residues modulo the prime.

    It is never above the rank over the rationals of any integers with these residues. The time is
    that of about m·n·r multiplications for m rows, n columns and rank r. Of a wide matrix no more
    columns are looked at than it takes to reach as many as there are rows, and of a tall matrix
    no more rows.
    """
    rows, columns = matrix.shape
    work = _copied(matrix if rows <= columns else matrix.T, prime)
    return len(_eliminate(work, np.arange(len(work)), 0, 0, work.shape[1], prime))


def left_null_space(matrix: Residues, prime: int = PRIMES[0]) -> Residues:
    """A basis of the vectors z with z @ matrix = 0 modulo the prime, as rows.

    Args:
        matrix: Residues, shape (m, n).
        prime: Below 2^23.

    Returns:
        Residues, shape (m - rank, m).
    """
    work = _copied(matrix, prime)
    order = np.arange(len(work))
    pivots = _eliminate(work, order, 0, 0, work.shape[1], prime)
    rank = len(pivots)
    lower = work[:, pivots]  # shape: (m, rank); with ones on its diagonal, rows @ E = matrix[order]
    # z = (y, I) in the new order, with y @ lower[:rank] = -lower[rank:].
    y = _divide(-lower[rank:], lower[:rank], prime)
    basis = np.zeros((len(work) - rank, len(work)))
    basis[:, order[:rank]] = y
    basis[:, order[rank:]] = np.eye(len(work) - rank)
    return basis


def _eliminate(
    work: Residues, order: NDArray[np.intp], row: int, begin: int, end: int, prime: int
) -> list[int]:
    """Eliminate columns begin..end of the rows from `row` on, in place, recursively.

    Rows are swapped whole, and `order` with them. Afterwards the i-th pivot stands in row
    `row` + i, and the multipliers of the rows below it stand under it. Nothing else there is of
    use any more.

    Returns:
        The pivots' columns.
    """
    if end - begin <= _PANEL:
        return _eliminate_panel(work, order, row, begin, end, prime)
    middle = (begin + end) // 2
    left = _eliminate(work, order, row, begin, middle, prime)
    below = row + len(left)
    if below == len(work):  # no row is left: the other columns add nothing
        return left
    if left:
        lower, right = work[row:, left], work[row:, middle:end]
        top, rest = right[: len(left)], right[len(left) :]
        multipliers = lower[len(left) :]
        # rest -= multipliers · L⁻¹ · top, from the side that is the shorter.
        if len(rest) < top.shape[1]:
            multipliers = _divide(multipliers, lower[: len(left)], prime)
        else:
            top = _solve_unit_lower(lower[: len(left)], top, prime)
        _add_product(rest, -multipliers, top, prime)
    return left + _eliminate(work, order, below, middle, end, prime)


def _eliminate_panel(
    work: Residues, order: NDArray[np.intp], row: int, begin: int, end: int, prime: int
) -> list[int]:
    """Columns begin..end one by one."""
    panel = work[row:, begin:end].T.copy()  # one column of `work` is one row here: contiguous
    moved = np.arange(panel.shape[1])
    pivots: list[int] = []
    for column in range(len(panel)):
        at = len(pivots)
        if at == panel.shape[1]:
            break
        found = int(np.argmax(panel[column, at:] != 0)) + at
        pivot = int(panel[column, found])
        if pivot == 0:
            continue
        panel[:, [at, found]] = panel[:, [found, at]]
        moved[[at, found]] = moved[[found, at]]
        multipliers = panel[column, at + 1 :]
        multipliers *= _centred(pow(pivot, -1, prime), prime)
        _reduce(multipliers, prime)
        rest = panel[column + 1 :, at + 1 :]
        rest -= panel[column + 1 :, at, None] * multipliers
        _reduce(rest, prime)
        pivots.append(begin + column)
    changed = np.flatnonzero(moved != np.arange(len(moved)))
    work[row + changed] = work[row + moved[changed]]
    order[row + changed] = order[row + moved[changed]]
    work[row:, begin:end] = panel.T
    return pivots


def _solve_unit_lower(lower: Residues, right: Residues, prime: int) -> Residues:
    """The solution of L X = right; only what is below the diagonal of `lower` is read."""
    solution = np.array(right, order="C")

    def solve(begin: int, end: int) -> None:
        if end - begin <= _PANEL:
            for i in range(begin + 1, end):
                above = solution[begin:i]
                _add_product(solution[i : i + 1], -lower[i : i + 1, begin:i], above, prime)
            return
        middle = (begin + end) // 2
        solve(begin, middle)
        _add_product(
            solution[middle:end], -lower[middle:end, begin:middle], solution[begin:middle], prime
        )
        solve(middle, end)

    solve(0, len(solution))
    return solution


def _divide(left: Residues, lower: Residues, prime: int) -> Residues:
    """The solution of X L = left; only what is below the diagonal of `lower` is read."""
    # Transposed and reversed, that is a lower triangular system again.
    return _solve_unit_lower(lower.T[::-1, ::-1], left.T[::-1], prime)[::-1].T


def _add_product(target: Residues, left: Residues, right: Residues, prime: int) -> None:
    """target += left @ right modulo the prime, in place."""
    # A residue is at most p/2 + 4 (see `_reduce`): so many products and the target stay exact.
    depth = (2**53 - 2 * prime) // (prime // 2 + 4) ** 2
    step = max(1, _SLAB // max(1, right.shape[1]))
    for top in range(0, len(target), step):
        slab = target[top : top + step]
        for start in range(0, left.shape[1], depth):
            slab += left[top : top + step, start : start + depth] @ right[start : start + depth]
            _reduce(slab, prime)


def _reduce(values: Residues, prime: int) -> None:
    """Bring integers below 2^53 - p to between -p/2 - 4 and p/2 + 4, in place.

    The rounded quotient is off by one at most, and only where the remainder is within 4 of p/2.
    """
    quotient = values * (1 / prime)
    np.rint(quotient, out=quotient)
    quotient *= prime
    values -= quotient


def _copied(matrix: Residues, prime: int) -> Residues:
    work = np.array(matrix, dtype=np.float64, order="C")
    for row in work:  # a row at a time, so that no second copy is made
        _reduce(row, prime)
    return work


def _centred(residue: int, prime: int) -> int:
    return residue - prime if residue > prime // 2 else residue
