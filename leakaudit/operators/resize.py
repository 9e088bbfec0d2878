"""Interpolation of the spatial axes: linear, and not solved for its input."""

from __future__ import annotations

from dataclasses import dataclass

from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Node
from leakaudit.operators.base import NOT_SOLVED, AlongAxes, Roles, Shapes, resized

__all__ = ["Resize"]


@dataclass(frozen=True, slots=True)
class Resize(AlongAxes):
    """Nearest-neighbour, linear or cubic interpolation of the spatial axes, (B, N, H_1..H_d).

    `mode`: nearest, linear or cubic. `coordinates`: half_pixel, pytorch_half_pixel, align_corners
    or asymmetric. `nearest`: floor or round_prefer_floor, for the mode nearest. The output tensor's
    shape gives the sizes; `scales` per axis (all axes), where the file states them.
    """

    mode: str
    coordinates: str
    nearest: str = "floor"
    scales: tuple[float, ...] = ()
    cubic_coefficient: float = -0.75

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        return resized(inputs, stated)

    def stop(self, node: Node, known: Knowledge) -> str | None:
        return NOT_SOLVED
