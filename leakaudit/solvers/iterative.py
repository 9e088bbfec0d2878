"""What solvers by conjugate gradients share: no dense matrix of the equations is formed.

Conjugate gradients alone cannot tell whether the solution is the only one. A second run can: it
starts from a random point and solves for right-hand side 0. What remains of the random point lies
in the null space; if nothing remains, there is none (almost surely, and down to the singular values
that the run resolves).
"""

from __future__ import annotations

import torch

from leakaudit.solvers.conjugate_gradients import Iterate, Process, Spectrum, run
from leakaudit.solvers.interface import Solution
from leakaudit.solvers.normal_operator import NormalOperator

ITERATION_LIMIT = 1500
# A direction that the equations do not fix keeps its part of the random point: a standard normal
# number, however many unknowns there are. Below this in total, one such direction is missed with a
# probability of 0.8 %, and d of them with the d-th power of that.
NULL_PART = 1e-2
# How far each of its runs shrinks the gradient of the misfit: far enough wherever the condition
# number is below 1e4, and a further run follows where it is not.
ROUGH = 1e-6


def as_solution(
    operator: NormalOperator, end: Iterate, name: str, reason: str, *, full_rank: bool
) -> Solution:
    """Where an iteration ended, as a solution; its rank is given only where it was shown full."""
    largest, smallest = end.spectrum.extremes()
    return Solution(
        x=end.x,
        solver=name,
        reason=reason,
        unknowns=end.x.numel(),
        rank=int((operator.diagonal > 0).sum()) if full_rank else None,
        condition=_one_digit(largest / smallest) if smallest else None,
        singular_values=(_one_digit(largest), _one_digit(smallest)) if smallest else None,
        residual=end.residual,
        iterations=end.iterations,
    )


def _one_digit(estimate: float) -> float:
    """The estimates lean on rounding: more digits would differ between two runs."""
    return float(f"{estimate:.0e}")


def no_null_space(
    operator: NormalOperator, spectrum: Spectrum | None, seed: int = 0
) -> Process[bool]:
    """Whether the homogeneous equations drive a random point to 0.

    Args:
        operator: The equations. Unknowns that occur in none of them are left out.
        spectrum: Is shown what is left of the point: it leans to the smallest singular values.
        seed: Of the point.
    """
    generator = torch.Generator().manual_seed(seed)
    point = torch.randn(operator.shape, generator=generator, dtype=torch.float64)
    point = point.to(operator.device) * (operator.diagonal > 0)
    for _ in range(3):
        rhs = -operator.apply(point)
        step, _ = yield from run(operator, rhs, ITERATION_LIMIT, tolerance=ROUGH)
        point = point + step
        left = float(point.norm())
        if left > 0 and spectrum is not None:
            spectrum.see(point, operator.apply(point))
        if left < NULL_PART:
            return True
    return False
