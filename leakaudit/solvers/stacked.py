"""Gradient and weight constraints together, through the normal matrix.

The normal matrix of the stack is assembled from the structure of both sets (one small Gram matrix
per stride phase, one per output patch) without forming the stack. Its Cholesky factor
preconditions conjugate gradients on the original equations, so that squaring the condition number
costs iterations, not digits. Where it is singular, its eigenvalues tell the rank and give the
minimum-norm solution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from leakaudit.counting.bound import layer_bound
from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.conjugate_gradients import Preconditioner, least_squares
from leakaudit.solvers.dense import cholesky_solve
from leakaudit.solvers.interface import Cost, Solution, Solver
from leakaudit.solvers.normal import normal_matrix
from leakaudit.solvers.normal_operator import NormalOperator


@dataclass(frozen=True, slots=True)
class Stacked(Solver):
    """Minimum-norm where the rank is not full, which it always tells."""

    NAME = "normal matrix, Cholesky-preconditioned conjugate gradients"
    NAME_SINGULAR: ClassVar[str] = "normal matrix, eigenvalues"

    @staticmethod
    def cost(layer: ConvolutionGeometry) -> Cost:
        """A Cholesky factor, and room for the eigenvectors that a singular matrix takes."""
        unknowns = layer_bound(layer).unknowns
        return Cost(unknowns**3 // 6, 8 * 3 * unknowns**2)

    def solve(self, system: LayerSystem) -> Solution:
        operator = NormalOperator(system)
        H = normal_matrix(system, operator)  # (n, n), n = |X|
        # Pixels that nothing reads have a zero row; they would make the matrix singular for no
        # reason but themselves. They stay 0 in the solution and lack in the rank.
        live = torch.diagonal(H) > 0
        if not bool(live.any()):
            zero = "every coefficient is 0"
            return least_squares(operator).solution(self.NAME_SINGULAR, zero, 0, None)
        reduced = H if bool(live.all()) else H[live][:, live]
        factor, info = torch.linalg.cholesky_ex(reduced)
        if int(info) == 0:
            largest, smallest = extreme_singular_values(reduced, factor)
            if smallest > operator.resolved * largest:
                inverse = _among(live, lambda rows: cholesky_solve(rows.T, factor).T)
                end, full = least_squares(operator, inverse), reduced.shape[0]
                return end.solution(self.NAME, "", full, (largest, smallest))
        values, vectors = torch.linalg.eigh(reduced)
        singular = values.clamp_min(0).sqrt()
        keep = singular > operator.resolved * singular[-1]
        kept, rank = vectors[:, keep], int(keep.sum())
        inverse = _among(live, lambda rows: ((rows @ kept) / values[keep]) @ kept.T)
        end = least_squares(operator, inverse)
        if not rank:
            return replace(end.solution(self.NAME_SINGULAR, "", 0, None), condition=math.inf)
        extremes = float(singular[-1]), float(singular[keep][0])
        return end.solution(self.NAME_SINGULAR, "", rank, extremes)


def extreme_singular_values(H: Tensor, factor: Tensor, steps: int = 12) -> tuple[float, float]:
    """Largest and smallest singular value of the stack, by (inverse) power iteration on H = SᵀS.

    Both are estimates from inside the spectrum: the largest is at least, the smallest at most
    what is returned divided by a factor near 1.
    """
    start = torch.linspace(1.0, 2.0, H.shape[0], dtype=H.dtype, device=H.device)
    # Deterministic, and orthogonal to nothing in particular.
    start = torch.sin(start * 1e4)[:, None]
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


def _among(live: Tensor, solve: Callable[[Tensor], Tensor]) -> Preconditioner:
    """A map of the live unknowns, rows (m, r), as one of all of them; the others become 0."""

    def apply(y: Tensor) -> Tensor:
        flat = y.flatten(1)
        result = torch.zeros_like(flat)
        result[:, live] = solve(flat[:, live])
        return result.reshape(y.shape)

    return apply
