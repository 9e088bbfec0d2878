"""Both sets of equations by conjugate gradients in the memory of a few copies of the input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch

from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers import conjugate_gradients as cg
from leakaudit.solvers.circulant import ScaledCirculant
from leakaudit.solvers.interface import Cost, Solution, Solver
from leakaudit.solvers.normal_operator import NormalOperator

# Known outputs per unknown from which on the weight constraints are solved alone: every equation
# more makes an iteration dearer, and the gradient constraints then add next to nothing.
ENOUGH = 2.0
# The gradient constraints agree with that solution if the residual of all equations is at most this
# many times the precision of the gradients, and for the coarsest of them at most this.
AGREES = 1e3
MOST_DISAGREEMENT = 0.1


@dataclass(frozen=True, slots=True)
class MatrixFree(Solver):
    """`rank` is None where it stays open."""

    NAME = "matrix-free conjugate gradients"

    @staticmethod
    def cost(layer: ConvolutionGeometry) -> Cost:
        """Of the circulant preconditioner, which is left out where it takes too much memory."""
        unknowns = layer.channels * prod(axis.size for axis in layer.axes[1:])
        # A block per cell of stride x stride pixels, for each group.
        block = layer.channels // layer.groups * prod(axis.stride for axis in layer.axes[1:])
        return Cost(unknowns * block**2, 16 * block * unknowns)

    def solve(self, system: LayerSystem) -> Solution:
        known = 0 if system.mask is None else int(torch.count_nonzero(system.mask))
        unknowns = prod(system.convolution.input_shape)
        operator = NormalOperator(system)
        equations = known + (0 if system.dw is None else system.dw.numel())
        if equations < operator.read:
            short = f"only {equations} equations are known for {unknowns} unknowns"
            return _solve(operator, None, self.NAME, short, certify=False)
        if not system.has_gradient or known < ENOUGH * unknowns:
            return self._solve_all(system, operator, "")
        alone = replace(system, dw=None, G=None)
        suffices = f"the {known} known outputs suffice for {unknowns} unknowns"
        solution = self._solve_all(alone, NormalOperator(alone), suffices)
        misfit = operator.misfit(solution.x)
        residual = misfit.residual / misfit.rhs if misfit.rhs else 0.0
        agrees = residual <= min(AGREES * system.precision, MOST_DISAGREEMENT)
        if agrees and solution.rank == operator.read:
            return replace(solution, residual=residual)
        said = f"the {known} known outputs alone did not settle it"
        return self._solve_all(system, operator, said)

    def _solve_all(self, system: LayerSystem, operator: NormalOperator, said: str) -> Solution:
        if not operator.read:
            zero = f"{said}; every coefficient is 0" if said else "every coefficient is 0"
            return cg.least_squares(operator).solution(self.NAME, zero, 0, None)
        if operator.weight is None or self.cost(system.geometry).memory > self.memory:
            return _solve(operator, None, self.NAME, said)
        name = f"{self.NAME}, circulant preconditioner"
        circulant = ScaledCirculant(system, operator)
        solution = _solve(operator, circulant, name, said)
        if solution.rank is not None:
            return solution
        # Among several solutions the preconditioner does not choose the one of least norm.
        return _solve(operator, None, self.NAME, said, certify=False)


def _solve(
    operator: NormalOperator,
    precondition: cg.Preconditioner | None,
    name: str,
    reason: str,
    *,
    certify: bool = True,
) -> Solution:
    end = cg.least_squares(operator, precondition, cg.SOLVER_LIMIT)
    full = False
    if certify and end.converged:
        (full,) = cg.drive(precondition, cg.no_null_space(operator, end.spectrum))
    largest, smallest = end.spectrum.extremes()
    # A direction that the precision of the gradients drowns is not fixed, whatever a run on exact
    # numbers makes of it.
    rank = operator.read if full and smallest > operator.resolved * largest else None
    if not smallest:
        return end.solution(name, reason, rank, None)
    extremes = _one_digit(largest), _one_digit(smallest)
    condition = _one_digit(largest / smallest)
    return replace(end.solution(name, reason, rank, extremes), condition=condition)


def _one_digit(estimate: float) -> float:
    """The estimates lean on rounding: more digits would differ between two runs."""
    return float(f"{estimate:.0e}")
