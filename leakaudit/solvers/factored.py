"""A base for solvers by conjugate gradients with a factor of the normal matrix in float32."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.conjugate_gradients import Preconditioner, drive, extremes, minimise
from leakaudit.solvers.interface import Solution, Solver
from leakaudit.solvers.iterative import ITERATION_LIMIT, as_solution, no_null_space
from leakaudit.solvers.normal_operator import RESOLVED, NormalOperator

# An error of this share of the gradients' own rounding need not be reduced: it shows in no figure
# that is reported, so that these do not depend on how many threads added up.
NEGLIGIBLE = 1e-6


@dataclass(frozen=True, slots=True)
class Factored(Solver):
    """Factors once, then iterates in float64; a subclass says how it factors.

    Attributes:
        MATRIX: What it factors, as part of a sentence.
    """

    MATRIX: ClassVar[str]

    @staticmethod
    @abstractmethod
    def has_base(layer: ConvolutionGeometry) -> bool:
        """Whether the equations that it factors first are there."""

    @abstractmethod
    def factor(self, system: LayerSystem, operator: NormalOperator) -> Preconditioner:
        """Factor.

        Args:
            system: The equations.
            operator: The same, scaled.

        Returns:
            An approximation of (SᵀS)⁻¹, symmetric and positive definite.

        Raises:
            ValueError: The equations of its base are not there.
            torch.linalg.LinAlgError: Rounding to float32 has made the matrix indefinite.
        """

    def solve(self, system: LayerSystem) -> Solution | None:
        """Solve with the factor as preconditioner; see `Solver`."""
        operator = NormalOperator(system)
        if not bool((operator.diagonal > 0).any()):
            return None  # every coefficient is 0: nothing to factor
        try:
            inverse = self.factor(system, operator)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # its stub does not export it
            return None
        # What is left of the random point is not asked for its singular values: those found by
        # Lanczos are better.
        end, full, (largest, smallest) = drive(
            inverse,
            minimise(operator, ITERATION_LIMIT, NEGLIGIBLE * system.precision),
            no_null_space(operator, None),
            extremes(operator),
        )
        resolved = smallest > max(RESOLVED, system.precision) * largest
        if not (end.converged and full and resolved):
            return None
        solution = as_solution(operator, end, self.NAME, "", full_rank=True)
        return replace(solution, condition=largest / smallest, singular_values=(largest, smallest))
