"""Which solver a layer gets: a pure function of sizes, with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from leakaudit.counting.bound import layer_bound
from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.solvers.factored import Factored
from leakaudit.solvers.gradient_only import GradientOnly, largest_phase
from leakaudit.solvers.interface import DEFAULT_MEMORY, Solver
from leakaudit.solvers.matrix_free import MatrixFree
from leakaudit.solvers.registry import SOLVERS
from leakaudit.solvers.stacked import Stacked

# Below this many unknowns a dense factor costs less than the calls that a band takes.
FEW = 800
# With this many outputs per unknown, conjugate gradients take few iterations, even where a ReLU
# hides half of the outputs.
MANY_OUTPUTS = 4.0
# Multiplications that a factorisation may take: minutes on a laptop.
FACTOR_PRODUCTS = 5e12
# Of the matrix of one stride phase: its singular values are computed.
MOST_COLUMNS = 4096


@dataclass(frozen=True, slots=True)
class Choice:
    """A solver and why."""

    solver: type[Solver]
    reason: str


def choose(layer: ConvolutionGeometry, memory: int = DEFAULT_MEMORY) -> Choice:
    """Choose the solver for a layer.

    Args:
        layer: Its `observed` and `outputs_known` say which equations there are.
        memory: Bytes that the solver may take for matrices.
    """
    return _gradient_only(layer, memory) or choose_for_both(layer, memory)


def _gradient_only(layer: ConvolutionGeometry, memory: int) -> Choice | None:
    """The solver for gradient constraints, if they may suffice or are all there is."""
    bound = layer_bound(layer)
    if not layer.observed or (layer.outputs_known and bound.gradient_rank < bound.read):
        return None
    rows, columns = largest_phase(layer)
    if GradientOnly.cost(layer).memory <= memory and columns <= MOST_COLUMNS:
        return Choice(
            GradientOnly,
            f"the {bound.gradient_constraints} gradient constraints suffice; one matrix of "
            f"{rows} x {columns} per phase",
        )
    if layer.outputs_known:
        return None
    return Choice(
        MatrixFree,
        f"one phase of the gradient constraints has {columns} columns, too many to factor",
    )


def choose_for_both(layer: ConvolutionGeometry, memory: int = DEFAULT_MEMORY) -> Choice:
    """Choose the solver for both sets of equations, or for weight constraints alone."""
    bound = layer_bound(layer)
    dense = choose_dense(layer, memory)
    if dense is not None and (bound.unknowns <= FEW or bound.rank < bound.read):
        return dense
    counts = f"{bound.weight_constraints} weight constraints for {bound.unknowns} unknowns"
    if bound.weight_constraints >= MANY_OUTPUTS * bound.unknowns:
        return Choice(MatrixFree, f"{counts}: few iterations, no factor is needed")
    factored = _factored(layer, memory) if bound.rank == bound.read else None
    return factored or Choice(MatrixFree, f"{counts}: no factor fits into {memory >> 20} MiB")


def _factored(layer: ConvolutionGeometry, memory: int) -> Choice | None:
    """The cheapest factor of the normal matrix in float32 that fits."""
    fitting = {}
    for solver in SOLVERS:
        if issubclass(solver, Factored) and solver.has_base(layer):
            cost = solver.cost(layer)
            if cost.memory <= memory and cost.products <= FACTOR_PRODUCTS:
                fitting[solver] = cost.products
    if not fitting:
        return None
    solver = min(fitting, key=fitting.__getitem__)
    return Choice(
        solver,
        f"both sets are needed; {solver.MATRIX} takes {fitting[solver]:.1e} multiplications to "
        f"factor, the dense matrix {Stacked.cost(layer).products:.1e}",
    )


def choose_dense(layer: ConvolutionGeometry, memory: int = DEFAULT_MEMORY) -> Choice | None:
    """The dense solver, which always tells the rank, or None where it does not fit."""
    if Stacked.cost(layer).memory > memory:
        return None
    unknowns = layer_bound(layer).unknowns
    return Choice(
        Stacked, f"both sets are needed, and the normal matrix of {unknowns} unknowns fits"
    )
