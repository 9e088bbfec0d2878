"""Conjugate gradients for least squares (Björck, Numerical Methods for Least Squares, 1996)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from leakaudit.rconv.operators import LinearOperator

ITERATION_LIMIT = 2000


def cgls(
    equations: Sequence[tuple[LinearOperator, Tensor]],
    shape: tuple[int, ...],
    precondition: Callable[[Tensor], Tensor] | None = None,
    limit: int = ITERATION_LIMIT,
) -> tuple[Tensor, int, float]:
    """Minimise the sum over the equations of ||operator x - rhs||² from x = 0.

    Stops when the gradient no longer shrinks, which in float64 means that rounding is reached.

    Args:
        equations: Operators with their right-hand sides, float64.
        shape: Of x.
        precondition: Approximates the inverse normal matrix; symmetric positive semidefinite.
        limit: Iterations at most.

    Returns:
        x, iterations done, and the relative residual.
    """
    rhs_norm = torch.stack([rhs.norm() for _, rhs in equations]).norm()
    x = equations[0][1].new_zeros(shape)
    if float(rhs_norm) == 0:
        return x, 0, 0.0
    residuals = [rhs.clone() for _, rhs in equations]

    def gradient() -> Tensor:
        total = equations[0][0].rmv(residuals[0])
        for (operator, _), residual in zip(equations[1:], residuals[1:], strict=True):
            total = total + operator.rmv(residual)
        return total

    s = gradient()
    z = precondition(s) if precondition else s
    p = z
    gamma = torch.sum(s * z)
    first = best = float(gamma)
    best_x, since_best, iterations = x, 0, 0
    while iterations < limit and first > 0:
        q = [operator.mv(p) for operator, _ in equations]
        curvature = torch.stack([torch.sum(part * part) for part in q]).sum()
        if float(curvature) <= 0:
            break
        alpha = gamma / curvature
        x = x + alpha * p
        # The residual is recomputed now and then: its recurrence drifts away from the truth.
        iterations += 1
        if precondition or iterations % 20 == 0:
            residuals = [rhs - operator.mv(x) for operator, rhs in equations]
        else:
            residuals = [r - alpha * part for r, part in zip(residuals, q, strict=True)]
        s = gradient()
        z = precondition(s) if precondition else s
        gamma, previous = torch.sum(s * z), gamma
        size = float(gamma)
        if size < best:
            since_best = 0 if size < 0.25 * best else since_best + 1
            best, best_x = size, x
        else:
            since_best += 1
        if size <= 1e-30 * first or since_best > (2 if precondition else 60):
            break
        p = z + (gamma / previous) * p
    final = torch.stack([(rhs - op.mv(best_x)).norm() for op, rhs in equations]).norm()
    return best_x, iterations, float(final / rhs_norm)
