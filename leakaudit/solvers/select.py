"""Which solver a layer gets: a pure function of sizes, with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from leakaudit.counting.bound import layer_bound
from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.equations.phases import axis_phases
from leakaudit.solvers.band import band_cost
from leakaudit.solvers.phase_blocks import phases_cost

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
    BORDERED_BAND = "band with border"
    BORDERED_PHASES = "phases with border"
    DENSE_FACTOR = "dense factor"
    MATRIX_FREE = "matrix-free"


_FACTORED = {
    Method.BORDERED_BAND: "their normal matrix, as a band with a border,",
    Method.BORDERED_PHASES: "their normal matrix, as a block per phase with a border,",
    Method.DENSE_FACTOR: "their normal matrix, dense in float32,",
}


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
        fitting = {
            method: products
            for method, (products, size) in _factors(layer).items()
            if size <= memory and products <= FACTOR_PRODUCTS
        }
        if fitting:
            method = min(fitting, key=fitting.__getitem__)
            return Choice(
                method,
                f"both sets are needed; {_FACTORED[method]} takes {fitting[method]:.1e} "
                f"multiplications to factor, the dense matrix {_dense_products(layer):.1e}",
            )
    counts = f"{bound.weight_constraints} weight constraints for {bound.unknowns} unknowns"
    if bound.weight_constraints >= MANY_OUTPUTS * bound.unknowns:
        return Choice(Method.MATRIX_FREE, f"{counts}: few iterations, no factor is needed")
    return Choice(Method.MATRIX_FREE, f"{counts}: no factor fits into {memory >> 20} MiB")


def _factors(layer: ConvolutionGeometry) -> dict[Method, tuple[int, int]]:
    """Multiplications and bytes of each way to factor the normal matrix in float32."""
    costs = {
        Method.BORDERED_BAND: band_cost(layer),
        Method.DENSE_FACTOR: (_dense_products(layer), 8 * layer_bound(layer).unknowns ** 2),
    }
    if layer.observed:
        costs[Method.BORDERED_PHASES] = phases_cost(layer)
    return costs


def _dense_products(layer: ConvolutionGeometry) -> int:
    return layer_bound(layer).unknowns ** 3 // 6


def choose_dense(layer: ConvolutionGeometry, memory: int = DEFAULT_MEMORY) -> Choice | None:
    """The dense solver, which always tells the rank, or None where it does not fit."""
    unknowns = layer_bound(layer).unknowns
    if 8 * 3 * unknowns**2 > memory:
        return None
    return Choice(
        Method.STACKED, f"both sets are needed, and the normal matrix of {unknowns} unknowns fits"
    )
