"""A base for solvers by conjugate gradients with a factor of the normal matrix in float32."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers import conjugate_gradients as cg
from leakaudit.solvers.interface import Solution, Solver
from leakaudit.solvers.normal_operator import NormalOperator

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
    def factor(self, system: LayerSystem, operator: NormalOperator) -> cg.Preconditioner:
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
        operator = NormalOperator(system)
        if not operator.read:
            return None  # every coefficient is 0: nothing to factor
        try:
            inverse = self.factor(system, operator)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # its stub does not export it
            return None
        # What is left of the random point is not asked for its singular values: those found by
        # Lanczos are better.
        end, full, (largest, smallest) = cg.drive(
            inverse,
            cg.minimise(operator, cg.SOLVER_LIMIT, NEGLIGIBLE * system.precision),
            cg.no_null_space(operator, None),
            cg.extremes(operator),
        )
        if not (end.converged and full and smallest > operator.resolved * largest):
            return None
        iterate: cg.Iterate = end
        return iterate.solution(self.NAME, "", operator.read, (largest, smallest))
