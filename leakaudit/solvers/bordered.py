"""The normal matrix of both sets of equations, factored as a simple base with a border.

One set of equations is the base: its normal matrix H has a cheap Cholesky factor L. The rows C of
the other set are a border. With V = C L⁻ᵀ,

    (H + shift·I + CᵀC)⁻¹ = L⁻ᵀ (I - Vᵀ (I + V Vᵀ)⁻¹ V) L⁻¹

(Woodbury, 1950). All of it is in float32: it preconditions an iteration in float64, which then
takes a few steps. Vectors are rows here: so they lie in memory as the products want them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.solvers.dense import cholesky_solve, rows_times, unit_rows
from leakaudit.solvers.normal_operator import NormalOperator

# Added to the diagonal, relative to the largest eigenvalue: float32 then factors H even where its
# equations alone leave something open, and well-determined directions hardly notice.
SHIFT = 1e-5
_STRIP = 240  # columns of a Gram matrix computed at once


class Base(ABC):
    """L of the normal matrix of one set of equations, which must be there, with a small shift.

    It orders the R numbers of a vector as it suits it; some are void.

    Attributes:
        unknowns: Which unknown each number is, in x (B, N, H..) flattened; |X| for void ones.
    """

    unknowns: Tensor

    @abstractmethod
    def border(self) -> Tensor | None:
        """C, the equations of the other set (rows, R), float32; None where there are none."""

    @abstractmethod
    def forward(self, vectors: Tensor) -> Tensor:
        """L⁻¹ v for each row v of vectors (m, R), in place."""

    @abstractmethod
    def backward(self, vectors: Tensor) -> Tensor:
        """L⁻ᵀ v for each row v of vectors (m, R), in place."""


class Bordered:
    """Approximates (SᵀS)⁻¹; symmetric positive definite."""

    def __init__(self, base: Base) -> None:
        """Factor what the border adds to the base."""
        self._base = base
        self._V: Tensor | None = None
        border = self._base.border()
        if border is not None:
            self._V = self._base.forward(border)
            self._core = _core(self._V)

    def __call__(self, y: Tensor) -> Tensor:
        """Apply to y (m, B, N, H..), m of the layer's inputs, float64."""
        rows, size = unit_rows(y)
        # One number more than there are unknowns: the void ones of the base read and write it.
        extended = F.pad(rows, (0, 1))
        u = self._base.forward(extended[:, self._base.unknowns])
        if self._V is not None:
            u -= cholesky_solve((u @ self._V.T).T, self._core).T @ self._V
        extended[:, self._base.unknowns] = self._base.backward(u)
        return (extended[:, :-1].double() * size).reshape(y.shape)


def _core(V: Tensor) -> Tensor:
    """The Cholesky factor of I + V Vᵀ."""
    rows = V.shape[0]
    core = torch.empty((rows, rows), dtype=V.dtype, device=V.device)
    for start in range(0, rows, _STRIP):
        end = min(start + _STRIP, rows)  # below the diagonal alone: Cholesky reads no more
        core[start:, start:end] = rows_times(V[start:], V[start:end])
    core.diagonal().add_(1)
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(core)
    if int(info):  # rounding of large products has made it indefinite
        factor = torch.linalg.cholesky(core.double()).to(V.dtype)
    return factor


def base_shift(operator: NormalOperator) -> float:
    """What is added to the diagonal of H."""
    # The largest entry of the diagonal is of the order of the largest eigenvalue.
    return SHIFT * float(operator.diagonal.max())
