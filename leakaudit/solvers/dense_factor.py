"""The normal matrix of both sets of equations, factored densely in float32.

A preconditioner for an iteration in float64: it needs few digits, and float32 takes half the time
and half the memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leakaudit.counting.bound import layer_bound
from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.conjugate_gradients import Preconditioner
from leakaudit.solvers.dense import cholesky_solve, unit_rows
from leakaudit.solvers.factored import Factored
from leakaudit.solvers.interface import Cost
from leakaudit.solvers.normal import normal_matrix
from leakaudit.solvers.normal_operator import NormalOperator

# Added to the diagonal, relative to its largest entry: keeps rounding from making it indefinite.
SHIFT = 3e-6
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class DenseFactor(Factored):
    """Factors the normal matrix of all equations as one dense matrix."""

    NAME = "conjugate gradients, preconditioned by the dense normal matrix's Cholesky factor"
    MATRIX = "their normal matrix, dense in float32,"

    @staticmethod
    def has_base(layer: ConvolutionGeometry) -> bool:
        return layer.outputs_known or layer.observed

    @staticmethod
    def cost(layer: ConvolutionGeometry) -> Cost:
        """A Cholesky factor; float32 takes a third of what the eigenvectors would."""
        unknowns = layer_bound(layer).unknowns
        return Cost(unknowns**3 // 6, 8 * unknowns**2)

    def factor(self, system: LayerSystem, operator: NormalOperator) -> Preconditioner:
        H = normal_matrix(system, operator, torch.float32)
        H.diagonal().add_(SHIFT * float(H.diagonal().max()))
        L = cholesky_in_place(H)

        def inverse(y: Tensor) -> Tensor:
            rows, size = unit_rows(y)
            solved = cholesky_solve(rows.T, L).T
            return (solved.double() * size).reshape(y.shape)

        return inverse


def cholesky_in_place(H: Tensor) -> Tensor:
    """Lower Cholesky factor of H (n, n), which it overwrites.

    Block by block, most of it matrix products: LAPACK's own takes twice the time in float32.
    """
    n = H.shape[0]
    for start in range(0, n, _BLOCK):
        end = min(start + _BLOCK, n)
        L = torch.linalg.cholesky(H[start:end, start:end])
        H[start:end, start:end] = L
        H[start:end, end:] = 0
        if end == n:
            break
        identity = torch.eye(end - start, dtype=H.dtype, device=H.device)
        inverse = torch.linalg.solve_triangular(L, identity, upper=False)
        below = H[end:, start:end] @ inverse.T
        H[end:, start:end] = below
        for left in range(end, n, _BLOCK):
            right = min(left + _BLOCK, n)
            H[left:, left:right].addmm_(
                below[left - end :], below[left - end : right - end].T, alpha=-1
            )
    return H
