"""The contract of a solver, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.equations.system import LayerSystem

DEFAULT_MEMORY = 2 << 30
# Above this condition number gradients in float32 leave errors of a thousandth.
ILL_CONDITIONED = 1e3


class Cost(NamedTuple):
    """What a solver takes before it iterates: multiplications, and bytes of its matrices."""

    products: int
    memory: int


@dataclass(frozen=True, slots=True)
class Solution:
    """What a solver found.

    Attributes:
        x: The layer's input (B, N, H..), float64; minimum-norm where the rank is not full.
        solver: Name of the solver.
        reason: What the solver has to say of the way it went, and before it why it was chosen.
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

    def falls_short(self, read: int) -> bool:
        """Whether fewer than the `read` unknowns are fixed, or all of them badly."""
        open_ones = self.rank is not None and self.rank < read
        return open_ones or (self.condition or 1.0) > ILL_CONDITIONED


@dataclass(frozen=True, slots=True)
class Solver(ABC):
    """One way to solve the equations of a layer. `registry.SOLVERS` lists them all.

    Attributes:
        NAME: By which its solutions name it.
        memory: Bytes that it may take for matrices.
    """

    NAME: ClassVar[str]
    memory: int = DEFAULT_MEMORY

    @staticmethod
    @abstractmethod
    def cost(layer: ConvolutionGeometry) -> Cost:
        """What it takes for a layer, from its sizes alone."""

    @abstractmethod
    def solve(self, system: LayerSystem) -> Solution | None:
        """Compute the layer's input.

        Args:
            system: Its equations, of those kinds that the solver takes.

        Returns:
            None where the solver cannot show that the rank is full, and another may tell more.

        Raises:
            ValueError: The equations that the solver takes are not there.
        """
