"""Interpolation: linear in the input and separable, so one matrix (out, in) per axis.

Formulas of ONNX Resize, version 19, without antialiasing and `exclude_outside`: what an index
outside the input would read is the nearest element of the border.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.execute.interface import Call, Executors, NotExecutable, Outputs
from leakaudit.operators import Resize


def resize(op: Resize, call: Call) -> Outputs:
    """Interpolate every axis whose size or scale is not that of the input.

    Raises:
        NotExecutable: The mode, the coordinates or the rounding is not known.
    """
    y = call.x[0]
    for axis, size in enumerate(call.shape):
        scale = op.scales[axis] if op.scales else None
        if size == y.shape[axis] and scale in (None, 1.0):
            continue
        try:
            source = _source_coordinates(op, y.shape[axis], size, scale, y.device)
            if op.mode == "nearest":
                y = y.index_select(axis, _nearest_index(op, source, y.shape[axis]))
            else:
                matrix = _interpolation_matrix(op, source, y.shape[axis]).to(y.dtype)
                y = (y.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
        except ValueError as error:
            raise NotExecutable(f"{call.name} ({error})") from error
    return (y,)


def _source_coordinates(
    op: Resize, size: int, resized: int, scale: float | None, device: torch.device
) -> Tensor:
    """Where each output index lies in the input, (out,) in float64; scale None: resized / size."""
    index = torch.arange(resized, dtype=torch.float64, device=device)

    def shrink(position: Tensor) -> Tensor:
        # position · size / resized rounds once: what is a whole number stays one.
        return position * size / resized if scale is None else position / scale

    match op.coordinates:
        case "half_pixel":
            return shrink(index + 0.5) - 0.5
        case "pytorch_half_pixel":
            return shrink(index + 0.5) - 0.5 if resized > 1 else index
        case "align_corners":
            return index * (size - 1) / (resized - 1) if resized > 1 else index
        case "asymmetric":
            return shrink(index)
    raise ValueError(f"coordinates {op.coordinates}")


def _nearest_index(op: Resize, source: Tensor, size: int) -> Tensor:
    """The input index that each output index copies, (out,) in int64."""
    match op.nearest:
        case "floor":
            rounded = source.floor()
        case "round_prefer_floor":
            rounded = (source - 0.5).ceil()
        case _:
            raise ValueError(f"rounding {op.nearest}")
    return rounded.long().clamp(0, size - 1)


def _interpolation_matrix(op: Resize, source: Tensor, size: int) -> Tensor:
    """The weights of the input elements for each output element, (out, in) in float64."""
    floor = source.floor()
    t = source - floor  # in [0, 1)
    match op.mode:
        case "linear":
            first, taps = 0, [1 - t, t]
        case "cubic":
            first, taps = -1, _cubic_weights(t, op.cubic_coefficient)
        case _:
            raise ValueError(f"mode {op.mode}")
    matrix = torch.zeros(len(source), size, dtype=torch.float64, device=source.device)
    for offset, weight in enumerate(taps):
        index = (floor.long() + first + offset).clamp(0, size - 1)
        matrix = matrix.scatter_add(1, index[:, None], weight[:, None])
    return matrix


def _cubic_weights(t: Tensor, a: float) -> list[Tensor]:
    """Keys' convolution kernel (1981) at the distances 1 + t, t, 1 - t and 2 - t."""

    def near(d: Tensor) -> Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Tensor) -> Tensor:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(1 + t), near(t), near(1 - t), far(2 - t)]


EXECUTORS: Executors = {Resize: resize}
