"""Both sets of equations by preconditioned conjugate gradients: no dense matrix of them is formed.

Conjugate gradients alone cannot tell whether the solution is the only one. A second run can: it
starts from a random point and solves for right-hand side 0. What remains of the random point lies
in the null space; if nothing remains, there is none (almost surely, and down to the singular values
that the run resolves).
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Protocol

import torch

from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.circulant import ScaledCirculant, circulant_bytes
from leakaudit.solvers.conjugate_gradients import (
    Iterate,
    Preconditioner,
    Process,
    Spectrum,
    drive,
    extremes,
    least_squares,
    minimise,
    run,
)
from leakaudit.solvers.interface import Solution
from leakaudit.solvers.normal_operator import NormalOperator
from leakaudit.solvers.select import DEFAULT_MEMORY
from leakaudit.solvers.stacked import RESOLVED

MATRIX_FREE = "matrix-free conjugate gradients"
ITERATION_LIMIT = 1500
# A direction that the equations do not fix keeps its part of the random point: a standard normal
# number, however many unknowns there are. Below this in total, one such direction is missed with a
# probability of 0.8 %, and d of them with the d-th power of that.
NULL_PART = 1e-2
# An error of this share of the gradients' own rounding need not be reduced: it shows in no figure
# that is reported, so that these do not depend on how many threads added up.
NEGLIGIBLE = 1e-6
# How far each of its runs shrinks the gradient of the misfit: far enough wherever the condition
# number is below 1e4, and a further run follows where it is not.
ROUGH = 1e-6
# Known outputs per unknown from which on the weight constraints are solved alone: every equation
# more makes an iteration dearer, and the gradient constraints then add next to nothing.
ENOUGH = 2.0
# The gradient constraints agree with that solution if the residual of all equations is at most this
# many times the precision of the gradients, and for the coarsest of them at most this.
AGREES = 1e3
MOST_DISAGREEMENT = 0.1


class Factor(Protocol):
    """How a factor of the normal matrix in float32 is made."""

    NAME: str

    def __call__(self, system: LayerSystem, operator: NormalOperator) -> Preconditioner:
        """Factor; the operator holds the same equations, scaled."""


def solve_factored(system: LayerSystem, reason: str, factor: Factor) -> Solution | None:
    """Solve with a factor in float32 as preconditioner.

    Returns:
        None where full rank could not be shown: another solver may tell more.
    """
    operator = NormalOperator(system)
    if not bool((operator.diagonal > 0).any()):
        return None  # every coefficient is 0: nothing to factor
    try:
        inverse = factor(system, operator)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # its stub does not export it
        return None  # rounding to float32 has made the matrix indefinite
    # What is left of the random point is not asked for its singular values: those found by Lanczos
    # are better.
    end, full, (largest, smallest) = drive(
        inverse,
        minimise(operator, ITERATION_LIMIT, NEGLIGIBLE * system.precision),
        no_null_space(operator, None),
        extremes(operator),
    )
    resolved = smallest > max(RESOLVED, system.precision) * largest
    if not (end.converged and full and resolved):
        return None
    name = f"conjugate gradients, {factor.NAME}"
    solution = _solution(operator, end, name, reason, full_rank=True)
    return replace(solution, condition=largest / smallest, singular_values=(largest, smallest))


def solve_matrix_free(system: LayerSystem, reason: str, memory: int = DEFAULT_MEMORY) -> Solution:
    """Solve in the memory of a few copies of the input; `rank` is None where it stays open.

    Args:
        system: The equations.
        reason: Why this solver was chosen.
        memory: Bytes that the preconditioner may take.
    """
    known = 0 if system.mask is None else int(torch.count_nonzero(system.mask))
    unknowns = prod(system.convolution.input_shape)
    operator = NormalOperator(system)
    equations = known + (0 if system.dw is None else system.dw.numel())
    if equations < int((operator.diagonal > 0).sum()):
        short = f"{reason}; only {equations} equations are known for {unknowns} unknowns"
        return _solve(operator, system.precision, None, MATRIX_FREE, short, certify=False)
    if system.has_gradient and known >= ENOUGH * unknowns:
        alone = replace(system, dw=None, G=None)
        suffices = f"{reason}; the {known} known outputs suffice for {unknowns} unknowns"
        solution = _matrix_free(alone, NormalOperator(alone), suffices, memory)
        misfit = operator.misfit(solution.x)
        residual = misfit.residual / misfit.rhs if misfit.rhs else 0.0
        fixed = solution.rank == int((operator.diagonal > 0).sum())
        if fixed and residual <= min(AGREES * system.precision, MOST_DISAGREEMENT):
            return replace(solution, residual=residual)
        reason = f"{reason}; the {known} known outputs alone did not settle it"
    return _matrix_free(system, operator, reason, memory)


def _matrix_free(
    system: LayerSystem, operator: NormalOperator, reason: str, memory: int
) -> Solution:
    if not bool((operator.diagonal > 0).any()):
        zero = f"{reason}; every coefficient is 0"
        return _solution(operator, least_squares(operator), MATRIX_FREE, zero, full_rank=True)
    if operator.weight is None or circulant_bytes(system) > memory:
        return _solve(operator, system.precision, None, MATRIX_FREE, reason)
    name = f"{MATRIX_FREE}, circulant preconditioner"
    circulant = ScaledCirculant(system, operator)
    solution = _solve(operator, system.precision, circulant, name, reason)
    if solution.rank is not None:
        return solution
    # Among several solutions the preconditioner does not choose the one of least norm.
    return _solve(operator, system.precision, None, MATRIX_FREE, reason, certify=False)


def _solve(
    operator: NormalOperator,
    precision: float,
    precondition: Preconditioner | None,
    name: str,
    reason: str,
    *,
    certify: bool = True,
) -> Solution:
    end = least_squares(operator, precondition, ITERATION_LIMIT)
    full = False
    if certify and end.converged:
        (full,) = drive(precondition, no_null_space(operator, end.spectrum))
        # A direction that the precision of the gradients drowns is not fixed, whatever a run on
        # exact numbers makes of it.
        largest, smallest = end.spectrum.extremes()
        full = full and smallest > max(RESOLVED, precision) * largest
    return _solution(operator, end, name, reason, full_rank=full)


def _solution(
    operator: NormalOperator, end: Iterate, name: str, reason: str, *, full_rank: bool
) -> Solution:
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
