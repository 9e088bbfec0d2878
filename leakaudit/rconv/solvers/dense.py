"""Rank-revealing factorisation of one dense matrix, used for many right-hand sides."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Factorisation:
    """Truncated singular value decomposition T = U diag(s) Vᵀ.

    Attributes:
        left: Uᵀ (r, rows).
        singular_values: (r,), those kept, in falling order.
        right: V (columns, r).
        columns: Unknowns of the system.
    """

    left: Tensor
    singular_values: Tensor
    right: Tensor
    columns: int

    @property
    def rank(self) -> int:
        """Numerical rank."""
        return self.singular_values.numel()

    @property
    def condition(self) -> float:
        """Largest over smallest singular value kept; infinite for rank 0."""
        if self.rank == 0:
            return float("inf")
        return float(self.singular_values[0] / self.singular_values[-1])

    def solve(self, rhs: Tensor) -> Tensor:
        """Minimum-norm least-squares solution for right-hand sides (rows, m): (columns, m)."""
        return self.right @ ((self.left @ rhs) / self.singular_values[:, None])


def factorise(T: Tensor, precision: float) -> Factorisation:
    """Factor T (rows, columns).

    Singular values below `rank_tolerance · largest` count as zero.
    """
    rows, columns = T.shape
    if rows > 2 * columns:
        # The QR first: the SVD then works on a square matrix.
        Q, R = torch.linalg.qr(T)
        U, s, Vh = torch.linalg.svd(R, full_matrices=False)
        left = U.T @ Q.T
    else:
        U, s, Vh = torch.linalg.svd(T, full_matrices=False)
        left = U.T
    largest = float(s[0]) if s.numel() else 0.0
    keep = int((s > largest * rank_tolerance(rows, columns, precision)).sum())
    return Factorisation(left[:keep], s[:keep], Vh[:keep].T, columns)


def rank_tolerance(rows: int, columns: int, precision: float) -> float:
    """Relative size below which a singular value is rounding.

    Rounding the gradients disturbs every entry independently, which moves singular values by the
    square root of the size (of a random matrix); the factorisation's own error in float64 is
    bounded by the size itself. The size times the precision of bfloat16 would exceed 1.
    """
    size = max(rows, columns)
    return max(torch.finfo(torch.float64).eps * size, precision * math.sqrt(size))


def cholesky_solve(rhs: Tensor, factor: Tensor) -> Tensor:
    """(L Lᵀ)⁻¹ rhs by two triangular solves: for one right-hand side several times faster than
    torch.cholesky_solve on a CPU."""
    half = torch.linalg.solve_triangular(factor, rhs, upper=False)
    x: Tensor = torch.linalg.solve_triangular(factor.T, half, upper=True)
    return x
