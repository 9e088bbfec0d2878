"""What a solver returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Solution:
    """What a solver found.

    Attributes:
        x: The layer's input (B, N, H..), float64; minimum-norm where the rank is not full.
        solver: Name of the solver.
        reason: Why it was chosen.
        unknowns: |X|.
        rank: Numerical rank, or None where the solver cannot tell.
        condition: Largest over smallest singular value kept (the worst of the independent
            systems), or None. From an iterative solver an estimate, at most the true one but for
            rounding to one digit.
        singular_values: The largest and the smallest one kept, of the scaled equations; None
            where the solver saw none. From an iterative solver estimates from inside the spectrum.
        residual: Relative residual of the scaled equations.
        iterations: Of an iterative solver or of the refinement.
    """

    x: Tensor
    solver: str
    reason: str
    unknowns: int
    rank: int | None
    condition: float | None
    residual: float
    iterations: int = 0
    singular_values: tuple[float, float] | None = None

    @property
    def full_rank(self) -> bool:
        """Whether the equations fix every unknown, as far as the solver can tell."""
        return self.rank is None or self.rank == self.unknowns
