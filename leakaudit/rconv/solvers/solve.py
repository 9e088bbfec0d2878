"""Solve the equations of one layer with the solver that fits."""

from __future__ import annotations

from dataclasses import replace

from leakaudit.rconv.solvers import gradient_only, iterative, stacked
from leakaudit.rconv.solvers.bordered import Bordered
from leakaudit.rconv.solvers.dense_factor import DenseFactor
from leakaudit.rconv.solvers.interface import LayerSystem, Solution
from leakaudit.rconv.solvers.select import DEFAULT_MEMORY, Method, choose, choose_dense


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
    match choice.method:
        case Method.GRADIENT_ONLY:
            return gradient_only.solve(system, choice.reason)
        case Method.STACKED:
            return stacked.solve(system, choice.reason)
        case Method.MATRIX_FREE:
            return iterative.solve_matrix_free(system, choice.reason, memory)
        case Method.BORDERED:
            solution = iterative.solve_factored(system, choice.reason, Bordered)
        case Method.DENSE_FACTOR:
            solution = iterative.solve_factored(system, choice.reason, DenseFactor)
    if solution is not None:
        return solution
    open_ = "a factor in float32 left the rank open"
    dense = choose_dense(layer, memory)
    if dense is not None:
        return stacked.solve(system, f"{dense.reason}; {open_}")
    return iterative.solve_matrix_free(system, open_, memory)
