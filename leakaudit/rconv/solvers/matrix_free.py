"""Both sets of equations without any matrix: memory of a few copies of the input.

Conjugate gradients alone cannot tell whether the solution is the only one. A second run can: it
starts from a random point and solves for right-hand side 0. What remains of the random point lies
in the null space; if nothing remains, there is none (almost surely, and down to the singular values
that the run resolves).
"""

from __future__ import annotations

import torch

from leakaudit.rconv.solvers.cgls import cgls
from leakaudit.rconv.solvers.equations import equations
from leakaudit.rconv.solvers.interface import LayerSystem, Solution

NAME = "matrix-free CGLS"
ITERATION_LIMIT = 1500
# A direction that the equations do not fix keeps its part of the random point: a standard normal
# number, however many unknowns there are. Below this in total, one such direction is missed with a
# probability of 0.8 %, and d of them with the d-th power of that.
NULL_PART = 1e-2
PROBE_TOLERANCE = 1e-8


def solve(system: LayerSystem, reason: str) -> Solution:
    """Solve by conjugate gradients; `rank` is None where full rank could not be shown."""
    pairs, _, _ = equations(system)
    shape = system.convolution.input_shape
    end = cgls(pairs, shape, limit=ITERATION_LIMIT)
    unknowns = end.x.numel()
    condition = end.largest / end.smallest if end.smallest else None
    rank = unknowns if end.converged and no_null_space(system) else None
    return Solution(end.x, NAME, reason, unknowns, rank, condition, end.residual, end.iterations)


def no_null_space(system: LayerSystem, seed: int = 0) -> bool:
    """Whether a random point is driven to 0 by the homogeneous equations."""
    pairs, _, _ = equations(system)
    shape = system.convolution.input_shape
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(shape, generator=generator, dtype=torch.float64).to(pairs[0][1])
    # A z = A start from z = 0: start - z is what the equations leave of the random point.
    images = [(operator, operator.mv(start)) for operator, _ in pairs]
    end = cgls(images, shape, limit=ITERATION_LIMIT, residual_tolerance=PROBE_TOLERANCE)
    left = float((start - end.x).norm())
    return end.converged and left < NULL_PART
