"""Rank-revealing factorisation of one dense matrix, used for many right-hand sides."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Multiplications above which a pointwise convolution pays for handing over its operands.
_LARGE = 1 << 24
# Of power iteration for the extreme singular values: enough for the leading digit.
_POWERS = 20


@dataclass(frozen=True, slots=True)
class Factorisation:
    """The pseudo-inverse of T as a product, right · left.

    Attributes:
        left: (r, rows).
        right: (columns, r).
        singular_values: Of T (r,), those that count, in falling order.
    """

    left: Tensor
    right: Tensor
    singular_values: Tensor

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
        return self.right @ (self.left @ rhs)


def factorise(T: Tensor, precision: float) -> Factorisation:
    """Factor T (rows, columns).

    Singular values below `rank_tolerance · largest` count as zero. Where all count, T = Q R and
    the singular values of R are enough: singular vectors take several times as long.
    """
    rows, columns = T.shape
    tolerance = rank_tolerance(rows, columns, precision)
    if rows >= columns > 0:
        Q, R = torch.linalg.qr(T)
        s = torch.linalg.svdvals(R)
        if float(s[-1]) > tolerance * float(s[0]):
            identity = torch.eye(columns, dtype=T.dtype, device=T.device)
            return Factorisation(Q.T, torch.linalg.solve_triangular(R, identity, upper=True), s)
        U, s, Vh = torch.linalg.svd(R)
        left = U.T @ Q.T
    else:
        U, s, Vh = torch.linalg.svd(T, full_matrices=False)
        left = U.T
    largest = float(s[0]) if s.numel() else 0.0
    keep = int((s > largest * tolerance).sum())
    return Factorisation(left[:keep], Vh[:keep].T / s[:keep], s[:keep])


def least_squares(T: Tensor, right: Tensor) -> tuple[Tensor, tuple[float, float], float]:
    """The least-squares solution for T (rows, columns) of full column rank, by a QR factor.

    Q is never formed, nor are singular vectors.

    Returns:
        The solution (columns,), T's largest and smallest singular value as power iteration
        estimates them, from inside the spectrum (0 for a factor that is singular exactly), and the
        relative residual.
    """
    columns = T.shape[1]
    R = torch.linalg.qr(torch.cat([T, right[:, None]], 1), mode="r").R
    factor = R[:columns, :columns]
    generator = torch.Generator(device="cpu").manual_seed(0)
    start = torch.randn(columns, 1, generator=generator, dtype=T.dtype).to(T.device)
    if R.shape[0] < columns or not bool(factor.diagonal().all()):
        return torch.zeros_like(start[:, 0]), (float(factor.norm()), 0.0), 1.0
    largest = smallest = start / start.norm()
    for _ in range(_POWERS):
        largest = factor.T @ (factor @ largest)
        high = float(largest.norm())
        largest = largest / high
        half = torch.linalg.solve_triangular(factor.T, smallest, upper=False)
        smallest = torch.linalg.solve_triangular(factor, half, upper=True)
        low = float(smallest.norm())
        smallest = smallest / low
    x = torch.linalg.solve_triangular(factor, R[:columns, columns:], upper=True)[:, 0]
    left = float(R[columns:, columns].norm()) / max(float(right.norm()), 1e-300)
    return x, (math.sqrt(high), 1 / math.sqrt(low)), left


def rank_tolerance(rows: int, columns: int, precision: float) -> float:
    """Relative size below which a singular value is rounding.

    Rounding the gradients disturbs every entry independently, which moves singular values by the
    square root of the size (of a random matrix); the factorisation's own error in float64 is
    bounded by the size itself. The size times the precision of bfloat16 would exceed 1.
    """
    size = max(rows, columns)
    return max(torch.finfo(torch.float64).eps * size, precision * math.sqrt(size))


def cholesky_solve(rhs: Tensor, factor: Tensor) -> Tensor:
    """(L Lᵀ)⁻¹ rhs by two triangular solves: for few right-hand sides several times faster than
    torch.cholesky_solve on a CPU."""
    half = torch.linalg.solve_triangular(factor, rhs, upper=False)
    x: Tensor = torch.linalg.solve_triangular(factor.T, half, upper=True)
    return x


def rows_times(X: Tensor, W: Tensor) -> Tensor:
    """X Wᵀ for float32 X (m, k) and W (n, k).

    On a CPU a large product is written as a pointwise convolution: the library behind those
    (oneDNN) uses the whole vector width of any processor, the one behind torch.mm (MKL) half of it
    on some, which takes almost twice the time. A GPU would round a convolution's operands to TF32.
    """
    if X.device.type != "cpu" or X.numel() * W.shape[0] < _LARGE:
        return X @ W.T
    pixels = X.contiguous()[None, None].permute(0, 3, 1, 2)  # (1, k, 1, m), channels last
    return F.conv2d(pixels, W[:, :, None, None]).permute(0, 2, 3, 1)[0, 0]


def unit_rows(y: Tensor) -> tuple[Tensor, Tensor]:
    """Float64 vectors (m, ..) as float32 rows (m, n) of largest entry 1, and their sizes (m, 1).

    Residuals become smaller than float32 can hold.
    """
    flat = y.flatten(1)
    size = flat.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return (flat / size).float(), size
