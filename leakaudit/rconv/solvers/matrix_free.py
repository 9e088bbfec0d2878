"""Both sets of equations without their matrix: memory of a few copies of the input.

Conjugate gradients alone cannot tell whether the solution is the only one. A second run can: it
starts from a random point and solves for right-hand side 0. What remains of the random point lies
in the null space; if nothing remains, there is none (almost surely, and down to the singular values
that the run resolves).
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch

from leakaudit.rconv.solvers.circulant import ScaledCirculant, circulant_bytes
from leakaudit.rconv.solvers.conjugate_gradients import (
    Preconditioner,
    Spectrum,
    least_squares,
    run,
)
from leakaudit.rconv.solvers.interface import LayerSystem, Solution
from leakaudit.rconv.solvers.normal_operator import NormalOperator

NAME = "matrix-free conjugate gradients"
ITERATION_LIMIT = 1500
# A direction that the equations do not fix keeps its part of the random point: a standard normal
# number, however many unknowns there are. Below this in total, one such direction is missed with a
# probability of 0.8 %, and d of them with the d-th power of that.
NULL_PART = 1e-2
# Known outputs per unknown from which on the weight constraints are solved alone: every equation
# more makes an iteration dearer, and the gradient constraints then add next to nothing.
ENOUGH = 2.0
# The gradient constraints agree with that solution if the residual of all equations is at most this
# many times the precision of the gradients.
AGREES = 1e3


def solve(system: LayerSystem, reason: str) -> Solution:
    """Solve by conjugate gradients; `rank` is None where full rank could not be shown."""
    known = 0 if system.mask is None else int(torch.count_nonzero(system.mask))
    unknowns = prod(system.convolution.input_shape)
    if system.has_gradient and known >= ENOUGH * unknowns:
        alone = replace(system, dw=None, G=None)
        solution = _solve(
            alone, f"{reason}; the {known} known outputs suffice for {unknowns} unknowns"
        )
        misfit = NormalOperator(system).misfit(solution.x)
        residual = misfit.residual / misfit.rhs if misfit.rhs else 0.0
        if solution.rank is not None and residual <= AGREES * system.precision:
            return replace(solution, residual=residual)
        reason = f"{reason}; the {known} known outputs alone did not settle it"
    return _solve(system, reason)


def _solve(system: LayerSystem, reason: str) -> Solution:
    operator = NormalOperator(system)
    precondition = _preconditioner(system, operator)
    name = f"{NAME}, circulant preconditioner" if precondition else NAME
    end = least_squares(operator, precondition, ITERATION_LIMIT)
    full = end.converged and no_null_space(operator, precondition, end.spectrum, system.precision)
    if not full and precondition is not None:
        # Among several solutions the preconditioner does not choose the one of least norm.
        end = least_squares(operator, None, ITERATION_LIMIT)
        name = NAME
    largest, smallest = end.spectrum.extremes()
    unknowns = end.x.numel()
    return Solution(
        end.x,
        name,
        reason,
        unknowns,
        unknowns if full else None,
        largest / smallest if smallest else None,
        end.residual,
        end.iterations,
    )


def _preconditioner(system: LayerSystem, operator: NormalOperator) -> Preconditioner | None:
    """The circulant, where there are weight constraints and its blocks are small enough."""
    if operator.weight is None:
        return None
    held = sum(t.nbytes for t in (system.w, system.o, system.mask, system.G) if t is not None)
    if circulant_bytes(system) > max(held, 1 << 26):
        return None
    return ScaledCirculant(system, operator)


def no_null_space(
    operator: NormalOperator,
    precondition: Preconditioner | None,
    spectrum: Spectrum,
    precision: float,
    seed: int = 0,
) -> bool:
    """Whether the homogeneous equations drive a random point to 0.

    Args:
        operator: The equations.
        precondition: As for the solution.
        spectrum: What is known of the singular values; more is added.
        precision: Of the observed gradients: singular values below it, relative to the largest,
            count as zero.
        seed: Of the point.
    """
    generator = torch.Generator().manual_seed(seed)
    point = torch.randn(operator.shape, generator=generator, dtype=torch.float64)
    point = point.to(operator.device)
    for _ in range(3):
        step, _ = run(operator, -operator.apply(point), precondition, ITERATION_LIMIT, spectrum)
        point = point + step
        left = float(point.norm())
        image = operator.apply(point)
        if left > 0:
            spectrum.see(point, image)
        largest, smallest = spectrum.extremes()
        if not smallest > precision * largest:
            return False
        if left >= NULL_PART:
            continue
        # What is left outside the null space is at most this image over the smallest eigenvalue.
        if float(image.norm()) < 0.1 * NULL_PART * smallest**2:
            return True
    return False
