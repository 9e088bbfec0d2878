"""Both sets of equations without any matrix: memory of a few copies of the input.

Conjugate gradients alone cannot tell whether the solution is the only one. A second run can: it
starts from a random point and solves for right-hand side 0. What remains of the random point lies
in the null space; if nothing remains, there is none (almost surely, and down to the singular values
that the run resolves).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leakaudit.rconv.operators import LinearOperator
from leakaudit.rconv.solvers.cgls import cgls
from leakaudit.rconv.solvers.equations import equations
from leakaudit.rconv.solvers.interface import LayerSystem, Solution

NAME = "matrix-free CGLS"
ITERATION_LIMIT = 1500
# A direction that the equations do not fix keeps its part of the random point: a standard normal
# number, however many unknowns there are. Below this in total, one such direction is missed with a
# probability of 0.8 %, and d of them with the d-th power of that.
NULL_PART = 1e-2


def solve(system: LayerSystem, reason: str) -> Solution:
    """Solve by conjugate gradients; `rank` is None where full rank could not be shown."""
    pairs, _, _ = equations(system)
    operators = [operator for operator, _ in pairs]
    shape = system.convolution.input_shape
    end = cgls(pairs, shape, limit=ITERATION_LIMIT)
    del pairs  # right-hand sides as large as the output: the second run makes its own
    unknowns = end.x.numel()
    condition = end.largest / end.smallest if end.smallest else None
    certain = end.converged and condition is not None
    rank = unknowns if certain and no_null_space(operators, end.x, condition or 1.0) else None
    return Solution(end.x, NAME, reason, unknowns, rank, condition, end.residual, end.iterations)


def no_null_space(
    operators: Sequence[LinearOperator], like: Tensor, condition: float, seed: int = 0
) -> bool:
    """Whether a random point is driven to 0 by the homogeneous equations.

    Args:
        operators: The equations.
        like: A tensor of the shape and on the device of the unknowns.
        condition: Estimate of the condition number: what is left of the point may be that much
            larger than what is left of its image.
        seed: Of the point.
    """
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)
    # A z = A start from z = 0: start - z is what the equations leave of the random point.
    images = [(operator, operator.mv(start)) for operator in operators]
    tolerance = NULL_PART / (10 * condition * float(start.norm()))
    end = cgls(images, tuple(like.shape), limit=ITERATION_LIMIT, residual_tolerance=tolerance)
    left = float((start - end.x).norm())
    return end.converged and left < NULL_PART
