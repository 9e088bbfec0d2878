"""Gradient and weight constraints together, through the normal matrix.

The normal matrix of the stack is assembled from the structure of both sets (one small Gram matrix
per stride phase, one per output patch) without forming the stack. Its Cholesky factor
preconditions conjugate gradients on the original equations, so that squaring the condition number
costs iterations, not digits. Where it is singular, its eigenvalues tell the rank and give the
minimum-norm solution.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.conjugate_gradients import least_squares
from leakaudit.solvers.dense import cholesky_solve
from leakaudit.solvers.interface import Solution
from leakaudit.solvers.normal import normal_matrix
from leakaudit.solvers.normal_operator import NormalOperator

NAME = "normal matrix, Cholesky-preconditioned conjugate gradients"
NAME_SINGULAR = "normal matrix, eigenvalues"
# Eigenvalues of a normal matrix carry errors of about 1e-16 of the largest, so singular values
# are resolved to about 1e-8 of the largest; below this share they count as zero.
RESOLVED = 1e-7


def solve(system: LayerSystem, reason: str) -> Solution:
    """Solve the stacked equations; minimum-norm where their rank is not full."""
    operator = NormalOperator(system)
    H = normal_matrix(system, operator)  # (n, n), n = |X|
    unknowns = H.shape[0]
    # Pixels that nothing reads have a zero row; they would make the matrix singular for no reason
    # but themselves. They stay 0 in the solution and lack in the rank.
    live = torch.diagonal(H) > 0
    if not bool(live.any()):
        end = least_squares(operator)
        zero = f"{reason}; every coefficient is 0"
        return Solution(end.x, NAME_SINGULAR, zero, unknowns, 0, None, end.residual)
    reduced = H if bool(live.all()) else H[live][:, live]
    factor, info = torch.linalg.cholesky_ex(reduced)
    if int(info) == 0:
        largest, smallest = extreme_singular_values(reduced, factor)
        if smallest > max(RESOLVED, system.precision) * largest:
            end = least_squares(operator, _preconditioner(factor, live))
            return Solution(
                end.x,
                NAME,
                reason,
                unknowns,
                reduced.shape[0],
                largest / smallest,
                end.residual,
                end.iterations,
                (largest, smallest),
            )
    values, vectors = torch.linalg.eigh(reduced)
    singular = values.clamp_min(0).sqrt()
    keep = singular > max(RESOLVED, system.precision) * singular[-1]
    rank = int(keep.sum())
    kept = vectors[:, keep]
    extremes = (float(singular[-1]), float(singular[keep][0])) if rank else None

    def project(y: Tensor) -> Tensor:
        flat = y.flatten(1)
        result = torch.zeros_like(flat)
        result[:, live] = ((flat[:, live] @ kept) / values[keep]) @ kept.T
        return result.reshape(y.shape)

    end = least_squares(operator, project)
    return Solution(
        end.x,
        NAME_SINGULAR,
        reason,
        unknowns,
        rank,
        extremes[0] / extremes[1] if extremes else float("inf"),
        end.residual,
        end.iterations,
        extremes,
    )


def extreme_singular_values(H: Tensor, factor: Tensor, steps: int = 12) -> tuple[float, float]:
    """Largest and smallest singular value of the stack, by (inverse) power iteration on H = SᵀS.

    Both are estimates from inside the spectrum: the largest is at least, the smallest at most
    what is returned divided by a factor near 1.
    """
    start = torch.linspace(1.0, 2.0, H.shape[0], dtype=H.dtype, device=H.device)
    start = torch.sin(start * 1e4)[
        :, None
    ]  # deterministic, and orthogonal to nothing in particular
    v = u = start / start.norm()
    largest = smallest_inverse = start.new_zeros(())
    for _ in range(steps):
        v = H @ v
        largest = v.norm()
        v = v / largest
        u = cholesky_solve(u, factor)
        smallest_inverse = u.norm()
        u = u / smallest_inverse
    return float(largest.sqrt()), float(smallest_inverse.rsqrt())


def _preconditioner(factor: Tensor, live: Tensor) -> Callable[[Tensor], Tensor]:
    def apply(y: Tensor) -> Tensor:
        flat = y.flatten(1)
        result = torch.zeros_like(flat)
        result[:, live] = cholesky_solve(flat[:, live].T, factor).T
        return result.reshape(y.shape)

    return apply
