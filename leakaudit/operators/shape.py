"""Operators that move, copy, drop or reduce elements."""

from __future__ import annotations

from dataclasses import dataclass

from leakaudit.graph import Operator


@dataclass(frozen=True, slots=True)
class Reshape(Operator):
    """Same elements in row-major order under a new shape: Flatten, Reshape, Squeeze, Unsqueeze."""


@dataclass(frozen=True, slots=True)
class Transpose(Operator):
    """Output axis i is input axis `permutation[i]`."""

    permutation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Expand(Operator):
    """Broadcast to the shape of the output tensor."""


@dataclass(frozen=True, slots=True)
class Concat(Operator):
    """Inputs, tensors or parameters, one after the other along `axis` (>= 0)."""

    axis: int


@dataclass(frozen=True, slots=True)
class Split(Operator):
    """Consecutive parts of these sizes along `axis` (>= 0); one output per part."""

    axis: int
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slice(Operator):
    """x[starts[i] : stops[i] : steps[i]] on every axis i.

    Starts lie in 0..size; steps are not 0. For a negative step the stop may be -1, which then
    means "down to and including element 0".
    """

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Gather(Operator):
    """Elements `indices` (>= 0, row-major under `shape`) of `axis` (>= 0).

    The axis is replaced by the axes of `shape`; () selects one element and drops the axis.
    """

    axis: int
    indices: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pad(Operator):
    """Pad every axis by `begin` and `end` (>= 0); `mode` is constant, reflect, edge or wrap."""

    begin: tuple[int, ...]
    end: tuple[int, ...]
    mode: str = "constant"
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Where(Operator):
    """x where a stored condition holds, y elsewhere: inputs condition (boolean), x, y, broadcast.

    The condition is a parameter, x and y are tensors or parameters. `kept` counts the elements of
    the output that come from x.
    """

    kept: int


@dataclass(frozen=True, slots=True)
class Reduce(Operator):
    """Reduce over `axes` (>= 0). `function`: sum, mean, max, min, prod, l1, l2, log_sum_exp."""

    function: str
    axes: tuple[int, ...]
    keepdims: bool


@dataclass(frozen=True, slots=True)
class Resize(Operator):
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
