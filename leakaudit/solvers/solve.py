"""Solve the equations of one layer with the solver that fits."""

from __future__ import annotations

from dataclasses import replace

from leakaudit.counting.bound import layer_bound
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.gradient_only import GradientOnly
from leakaudit.solvers.interface import DEFAULT_MEMORY, Solution
from leakaudit.solvers.matrix_free import MatrixFree
from leakaudit.solvers.select import choose, choose_dense, choose_for_both
from leakaudit.solvers.stacked import Stacked


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
    solution = choice.solver(memory).solve(system)
    alone = solution if choice.solver is GradientOnly and system.has_weight else None
    # Where the gradient constraints fix less than counting lets them, or fix it badly, the weight
    # constraints are taken in as well.
    if alone is not None and alone.falls_short(layer_bound(layer).read):
        rank = f"the gradient constraints alone have rank {alone.rank} of {alone.unknowns}"
        both = choose_for_both(layer, memory)
        choice = replace(both, reason=f"{rank}, condition {alone.condition:.0e}; {both.reason}")
        solution = choice.solver(memory).solve(system)
    if solution is not None:
        return _because(choice.reason, solution)
    fits = choose_dense(layer, memory) is not None
    last: Stacked | MatrixFree = Stacked(memory) if fits else MatrixFree(memory)
    return _because(f"{choice.reason}; it left the rank open", last.solve(system))


def _because(reason: str, solution: Solution) -> Solution:
    """With why it was chosen, before what the solver says itself."""
    own = f"; {solution.reason}" if solution.reason else ""
    return replace(solution, reason=f"{reason}{own}")
