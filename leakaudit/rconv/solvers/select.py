"""Which solver a layer gets: a pure function of sizes, with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from leakaudit.counting.bound import layer_bound
from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.rconv.phases import axis_phases
from leakaudit.rconv.solvers.bordered import bordered_cost

DEFAULT_MEMORY = 2 << 30
# Below this many unknowns a dense factor costs less than the calls that a band takes.
FEW = 800
# With this many outputs per unknown, conjugate gradients take few iterations, even where a ReLU
# hides half of the outputs.
MANY_OUTPUTS = 4.0
# Multiplications that a factorisation may take: minutes on a laptop.
FACTOR_PRODUCTS = 5e12


class Method(StrEnum):
    """The solvers there are."""

    GRADIENT_ONLY = "gradient-only"
    STACKED = "stacked"
    BORDERED = "bordered"
    DENSE_FACTOR = "dense factor"
    MATRIX_FREE = "matrix-free"


@dataclass(frozen=True, slots=True)
class Choice:
    """A solver and why."""

    method: Method
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
    columns = rows = 1
    for axis in layer.axes:
        phases = axis_phases(axis)
        columns *= max((len(phase.pixels) for phase in phases), default=1)
        rows *= max((len(phase.taps) for phase in phases), default=1)
    rows *= layer.filters // layer.groups
    phase_bytes = 8 * 3 * columns * (rows + columns)
    if not layer.observed or (layer.outputs_known and bound.gradient_rank < bound.read):
        return None
    if phase_bytes <= memory and columns <= 4096:
        return Choice(
            Method.GRADIENT_ONLY,
            f"the {bound.gradient_constraints} gradient constraints suffice; one matrix of "
            f"{rows} x {columns} per phase",
        )
    if layer.outputs_known:
        return None
    return Choice(
        Method.MATRIX_FREE,
        f"one phase of the gradient constraints has {columns} columns, too many to factor",
    )


def choose_for_both(layer: ConvolutionGeometry, memory: int = DEFAULT_MEMORY) -> Choice:
    """Choose the solver for both sets of equations, or for weight constraints alone."""
    bound = layer_bound(layer)
    dense = choose_dense(layer, memory)
    if dense is not None and (bound.unknowns <= FEW or bound.rank < bound.read):
        return dense
    if bound.weight_constraints < MANY_OUTPUTS * bound.unknowns and bound.rank == bound.read:
        products, size = bordered_cost(layer)
        dense_products, dense_size = bound.unknowns**3 // 6, 8 * bound.unknowns**2
        if size <= memory and products <= min(dense_products, FACTOR_PRODUCTS):
            return Choice(
                Method.BORDERED,
                f"both sets are needed; their normal matrix, as a band with a border, takes "
                f"{products:.1e} multiplications to factor (densely: {dense_products:.1e})",
            )
        if dense_size <= memory and dense_products <= FACTOR_PRODUCTS:
            return Choice(
                Method.DENSE_FACTOR,
                f"both sets are needed; their normal matrix takes {dense_products:.1e} "
                f"multiplications to factor (as a band with a border: {products:.1e})",
            )
    counts = f"{bound.weight_constraints} weight constraints for {bound.unknowns} unknowns"
    if bound.weight_constraints >= MANY_OUTPUTS * bound.unknowns:
        return Choice(Method.MATRIX_FREE, f"{counts}: few iterations, no factor is needed")
    return Choice(Method.MATRIX_FREE, f"{counts}: no factor fits into {memory >> 20} MiB")


def choose_dense(layer: ConvolutionGeometry, memory: int = DEFAULT_MEMORY) -> Choice | None:
    """The dense solver, which always tells the rank, or None where it does not fit."""
    unknowns = layer_bound(layer).unknowns
    if 8 * 3 * unknowns**2 > memory:
        return None
    return Choice(
        Method.STACKED, f"both sets are needed, and the normal matrix of {unknowns} unknowns fits"
    )
