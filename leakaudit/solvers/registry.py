"""The solvers there are. Of those that factor in float32 and cost the same, the first is taken."""

from __future__ import annotations

from leakaudit.solvers.band import BorderedBand
from leakaudit.solvers.dense_factor import DenseFactor
from leakaudit.solvers.gradient_only import GradientOnly
from leakaudit.solvers.interface import Solver
from leakaudit.solvers.matrix_free import MatrixFree
from leakaudit.solvers.phase_blocks import BorderedPhases
from leakaudit.solvers.stacked import Stacked

SOLVERS: tuple[type[Solver], ...] = (
    GradientOnly,
    Stacked,
    BorderedBand,
    DenseFactor,
    BorderedPhases,
    MatrixFree,
)
