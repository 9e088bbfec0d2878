"""Interpolation over the spatial axes of (B, N, H_1..H_d)."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import partial

import numpy as np

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Call, Layer, by_target
from leakaudit.frontends.aten.operators.pooling import require_sizes, spatial_source
from leakaudit.frontends.aten.operators.selection import gather
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.graph import Tensor

_MAX_SIZE = 2**16


def _scales(call: Call, axes: int) -> tuple[float, ...]:
    """Output over input size on every axis where the call states it, else nothing."""
    value = call.arguments.get("scale_factors")
    named = [
        call.arguments.get(name)
        for name in ("scales_d", "scales_h", "scales_w", "scales")
        if name in call.arguments
    ]
    found = value if isinstance(value, tuple) else tuple(named)
    numbers = tuple(float(item) for item in found if isinstance(item, int | float))
    if len(numbers) != axes:
        return ()
    if min(numbers) <= 0:
        raise NotUnderstoodError("its scale factors are not positive")
    return (1.0, 1.0, *numbers)


def _resized(call: Call, source: Tensor) -> tuple[int, ...]:
    """The sizes that an interpolation asks for, directly or by scale."""
    if call.arguments.get("output_size") is not None:
        return call.integers("output_size", ())
    sizes = source.shape[2:]
    scales = _scales(call, len(sizes))[2:]
    if not scales:
        raise NotUnderstoodError("it states neither sizes nor scales")
    return tuple(math.floor(size * scale) for size, scale in zip(sizes, scales, strict=True))


def _resize(call: Call, axes: int, mode: str) -> Layer:
    source = spatial_source(call, axes)
    require_sizes(call, axes, _resized(call, source))
    if mode == "nearest":
        op = ops.Resize("nearest", "asymmetric", "floor", _scales(call, axes))
    else:
        corners = call.flag("align_corners", False)
        coordinates = "align_corners" if corners else "half_pixel"
        op = ops.Resize(mode, coordinates, scales=() if corners else _scales(call, axes))
    return Layer(op, (source.name,))


def _nearest_exact(call: Call, axes: int) -> Layer:
    """floor((i + 1/2) · input/output): no rounding mode of `Resize` breaks ties this way."""
    source, wanted = spatial_source(call, axes), call.output.shape
    scales = _scales(call, axes) or (0.0,) * (axes + 2)
    require_sizes(call, axes, _resized(call, source))
    if max(wanted) > _MAX_SIZE:
        raise NotUnderstoodError("its output is too large")
    for axis in range(2, axes + 2):
        size, count = source.shape[axis], wanted[axis]
        step = 1 / Fraction(scales[axis]) if scales[axis] else Fraction(size, count)
        indices = [min(int((i + Fraction(1, 2)) * step), size - 1) for i in range(count)]
        layer = gather(source, axis, np.array(indices, np.int64))
        if axis == axes + 1:
            return layer
        source = call.computed(layer, (*source.shape[:axis], count, *source.shape[axis + 1 :]))
    raise NotUnderstoodError("it has no spatial axes")


_BUILDERS = {
    **{f"upsample_nearest{d}d": partial(_resize, axes=d, mode="nearest") for d in (1, 2, 3)},
    "upsample_linear1d": partial(_resize, axes=1, mode="linear"),
    "upsample_bilinear2d": partial(_resize, axes=2, mode="linear"),
    "upsample_trilinear3d": partial(_resize, axes=3, mode="linear"),
    "upsample_bicubic2d": partial(_resize, axes=2, mode="cubic"),
    **{f"_upsample_nearest_exact{d}d": partial(_nearest_exact, axes=d) for d in (1, 2, 3)},
}
BUILDERS = by_target({f"{name} {name}.vec": build for name, build in _BUILDERS.items()})
