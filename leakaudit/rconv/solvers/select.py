"""Which solver a layer gets: a pure function of sizes, with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from leakaudit.counting.bound import layer_bound
from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.rconv.phases import axis_phases

DEFAULT_MEMORY = 2 << 30


class Method(StrEnum):
    """The solvers there are."""

    GRADIENT_ONLY = "gradient-only"
    STACKED = "stacked"
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
    bound = layer_bound(layer)
    columns = rows = 1
    for axis in layer.axes:
        phases = axis_phases(axis)
        columns *= max((len(phase.pixels) for phase in phases), default=1)
        rows *= max((len(phase.taps) for phase in phases), default=1)
    rows *= layer.filters // layer.groups
    phase_bytes = 8 * 3 * columns * (rows + columns)
    if layer.observed and (not layer.outputs_known or bound.gradient_rank == bound.read):
        if phase_bytes <= memory and columns <= 4096:
            return Choice(
                Method.GRADIENT_ONLY,
                f"the {bound.gradient_constraints} gradient constraints suffice; one matrix of "
                f"{rows} x {columns} per phase",
            )
        return Choice(
            Method.MATRIX_FREE,
            f"one phase of the gradient constraints has {columns} columns, too many to factor",
        )
    if 8 * 3 * bound.unknowns**2 <= memory:
        return Choice(
            Method.STACKED,
            f"both sets are needed, and the normal matrix of {bound.unknowns} unknowns fits",
        )
    return Choice(
        Method.MATRIX_FREE,
        f"the normal matrix of {bound.unknowns} unknowns needs more than {memory >> 20} MiB",
    )
