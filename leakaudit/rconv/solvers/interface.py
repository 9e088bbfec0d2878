"""What a solver is given and what it returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.rconv.convolution import Convolution


@dataclass(frozen=True, slots=True)
class LayerSystem:
    """The linear equations of one convolution, in float64 on one device.

    Attributes:
        convolution: The layer's maps and shapes.
        geometry: The same layer as counting sees it.
        w: Weights (F, n, K..).
        dw: Observed dl/dw (F, n, K..), or None where it is not observed.
        G: Output gradient dl/do (B, F, O..), or None where it is not known.
        o: o - b on the known outputs (B, F, O..), or None where none are known.
        mask: 1 where o is known, 0 elsewhere, or None with o.
        precision: Relative precision (machine epsilon) of the observed gradients.
    """

    convolution: Convolution
    geometry: ConvolutionGeometry
    w: Tensor
    dw: Tensor | None
    G: Tensor | None
    o: Tensor | None
    mask: Tensor | None
    precision: float

    @property
    def has_gradient(self) -> bool:
        """Whether gradient constraints can be set up."""
        return self.dw is not None and self.G is not None

    @property
    def has_weight(self) -> bool:
        """Whether weight constraints can be set up."""
        return self.o is not None


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
