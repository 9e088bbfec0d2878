"""Conjugate gradients for least squares (Björck, Numerical Methods for Least Squares, 1996)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leakaudit.rconv.operators import LinearOperator

Equations = Sequence[tuple[LinearOperator, Tensor]]

ITERATION_LIMIT = 4000
# Stop when the gradient of the misfit, relative to the operator's norm and the residual, or the
# residual itself, relative to the right-hand side, is this small (the tests of LSQR, Paige and
# Saunders 1982).
GRADIENT_TOLERANCE = 1e-11
RESIDUAL_TOLERANCE = 2e-15
# Rounding can keep both tests from being met: stop too when the residual has not shrunk by a
# hundredth within so many iterations and the gradient is small.
STAGNATION = 40


@dataclass(frozen=True, slots=True)
class Iterate:
    """Where the iteration ended.

    Attributes:
        x: The solution.
        iterations: Done.
        residual: ||rhs - A x|| / ||rhs||.
        converged: Whether a stopping test was met before the limit.
        largest, smallest: Estimates of the extreme singular values that the right-hand side
            excites, from the Lanczos coefficients; the smallest is never below the true one.
    """

    x: Tensor
    iterations: int
    residual: float
    converged: bool
    largest: float
    smallest: float


def cgls(
    equations: Equations,
    shape: tuple[int, ...],
    precondition: Callable[[Tensor], Tensor] | None = None,
    limit: int = ITERATION_LIMIT,
    residual_tolerance: float = RESIDUAL_TOLERANCE,
) -> Iterate:
    """Minimise the sum over the equations of ||operator x - rhs||² from x = 0.

    On a GPU the stopping tests are evaluated every few iterations only, so that the host does not
    wait for every one.

    Args:
        equations: Operators with their right-hand sides, float64.
        shape: Of x.
        precondition: Approximates the inverse normal matrix; symmetric positive semidefinite.
        limit: Iterations at most.
        residual_tolerance: For the residual relative to the right-hand side.
    """
    rhs_norm = float(torch.stack([rhs.norm() for _, rhs in equations]).norm())
    x = equations[0][1].new_zeros(shape)
    if rhs_norm == 0:
        return Iterate(x, 0, 0.0, True, 0.0, 0.0)
    residuals = [rhs for _, rhs in equations]

    def gradient() -> Tensor:
        total = equations[0][0].rmv(residuals[0])
        for (operator, _), residual in zip(equations[1:], residuals[1:], strict=True):
            total = total + operator.rmv(residual)
        return total

    every = 1 if x.device.type == "cpu" else 16
    s = gradient()
    z = precondition(s) if precondition else s
    p = z
    gamma = torch.sum(s * z)
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    history: list[float] = []
    squared_norm = float(gamma) / rhs_norm**2  # of A, from below; grows with the iterations
    converged = squared_norm == 0
    iterations = 0
    while iterations < limit and not converged:
        q = [operator.mv(p) for operator, _ in equations]
        curvature = torch.stack([torch.sum(part * part) for part in q]).sum()
        alpha = gamma / curvature
        x = x + alpha * p
        iterations += 1
        if precondition:
            # Few iterations, and the last digits count: take the residual from x itself.
            residuals = [rhs - operator.mv(x) for operator, rhs in equations]
        else:
            residuals = [r - alpha * part for r, part in zip(residuals, q, strict=True)]
        s = gradient()
        z = precondition(s) if precondition else s
        gamma, previous = torch.sum(s * z), gamma
        beta = gamma / previous
        p = z + beta * p
        alphas.append(alpha)
        betas.append(beta)
        if iterations % every == 0:
            norms = torch.stack([r.norm() for r in residuals]).norm()
            residual, slope, growth = torch.stack(
                [norms, torch.sum(s * s).sqrt(), 1 / alpha]
            ).tolist()
            if not residual < float("inf"):
                break
            squared_norm = max(squared_norm, growth)
            small = slope <= GRADIENT_TOLERANCE * squared_norm**0.5 * residual
            history.append(residual)
            stuck = (
                len(history) > STAGNATION
                and residual > 0.99 * history[-STAGNATION]
                and slope <= 1e-6 * squared_norm**0.5 * residual
            )
            converged = small or stuck or residual <= residual_tolerance * rhs_norm
            if precondition and len(history) > 2 and residual >= 0.5 * history[-2]:
                converged = True
    final = torch.stack([(rhs - op.mv(x)).norm() for op, rhs in equations]).norm()
    largest, smallest = _ritz_values(alphas, betas)
    return Iterate(x, iterations, float(final) / rhs_norm, converged, largest, smallest)


def _ritz_values(alphas: list[Tensor], betas: list[Tensor]) -> tuple[float, float]:
    """Extreme singular values from the tridiagonal matrix that conjugate gradients build."""
    if not alphas:
        return 0.0, 0.0
    alpha = torch.stack(alphas).cpu()
    beta = torch.stack(betas).cpu()
    good = int((torch.isfinite(alpha) & (alpha > 0) & torch.isfinite(beta)).long().cumprod(0).sum())
    if good == 0:
        return 0.0, 0.0
    alpha, beta = alpha[:good], beta[:good]
    diagonal = 1 / alpha
    diagonal[1:] += beta[:-1] / alpha[:-1]
    off = beta[:-1].sqrt() / alpha[:-1]
    T = torch.diag(diagonal) + torch.diag(off, 1) + torch.diag(off, -1)
    values = torch.linalg.eigvalsh(T).clamp_min(0).sqrt()
    return float(values[-1]), float(values[0])
