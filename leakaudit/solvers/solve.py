"""Solve the equations of one layer with the solver that fits."""

from __future__ import annotations

from dataclasses import replace

from leakaudit.counting.bound import layer_bound
from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers import gradient_only, iterative, stacked
from leakaudit.solvers.bordered import BorderedBand, BorderedPhases
from leakaudit.solvers.dense_factor import DenseFactor
from leakaudit.solvers.interface import Solution
from leakaudit.solvers.select import (
    DEFAULT_MEMORY,
    Method,
    choose,
    choose_dense,
    choose_for_both,
)

# Above this condition number gradients in float32 leave errors of a thousandth: the weight
# constraints are then taken in as well.
ILL_CONDITIONED = 1e3


def solve_layer(system: LayerSystem, memory: int = DEFAULT_MEMORY) -> Solution:
    """Compute the input of a convolution from its equations.

    Args:
        system: Whatever equations can be set up.
        memory: Bytes that a solver may take for matrices.

    Raises:
        ValueError: There are no equations at all.
    """
    if not (system.has_gradient or system.has_weight):
        raise ValueError("no equations: neither dl/do nor o is known")
    layer = replace(system.geometry, observed=system.has_gradient, outputs_known=system.has_weight)
    choice = choose(layer, memory)
    if choice.method is Method.GRADIENT_ONLY:
        alone = gradient_only.solve(system, choice.reason)
        if not system.has_weight or not _falls_short(alone, layer):
            return alone
        rank = f"the gradient constraints alone have rank {alone.rank} of {alone.unknowns}"
        both = choose_for_both(layer, memory)
        choice = replace(both, reason=f"{rank}, condition {alone.condition:.0e}; {both.reason}")
    match choice.method:
        case Method.STACKED:
            return stacked.solve(system, choice.reason)
        case Method.BORDERED_BAND:
            solution = iterative.solve_factored(system, choice.reason, BorderedBand)
        case Method.BORDERED_PHASES:
            solution = iterative.solve_factored(system, choice.reason, BorderedPhases)
        case Method.DENSE_FACTOR:
            solution = iterative.solve_factored(system, choice.reason, DenseFactor)
        case _:
            return iterative.solve_matrix_free(system, choice.reason, memory)
    if solution is not None:
        return solution
    open_ = f"{choice.reason}; it left the rank open"
    if choose_dense(layer, memory) is not None:
        return stacked.solve(system, open_)
    return iterative.solve_matrix_free(system, open_, memory)


def _falls_short(alone: Solution, layer: ConvolutionGeometry) -> bool:
    """Whether the gradient constraints fix less than counting lets them, or fix it badly."""
    condition = alone.condition or 1.0
    return condition > ILL_CONDITIONED or (alone.rank or 0) < layer_bound(layer).read
