"""Pooling and interpolation over the spatial axes of (B, N, H_1..H_d)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from leakaudit.frontends.aten.call import Call, Layer, spread
from leakaudit.frontends.aten.values import NotUnderstoodError
from leakaudit.graph import Tensor
from leakaudit.operators import (
    AdaptiveAveragePool,
    AveragePool,
    Gather,
    MaxPool,
    Reduce,
    Resize,
)

Builder = Callable[[Call], Layer]

_MAX_SIZE = 2**16


def _source(call: Call, axes: int) -> Tensor:
    source = call.source()
    if len(source.shape) != axes + 2:
        raise NotUnderstoodError("its input has no batch axis")
    return source


def _windows(call: Call, axes: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Kernel, stride and padding; no stride means the kernel's size."""
    kernel = spread(call.integers("kernel_size", ()), axes, "kernel_size")
    stride = spread(call.integers("stride", ()) or kernel, axes, "stride")
    padding = spread(call.integers("padding", (0,)), axes, "padding")
    if min(kernel) < 1 or min(stride) < 1 or min(padding) < 0:
        raise NotUnderstoodError("its kernel, stride or padding is too small")
    return kernel, stride, padding


def _max_pool(axes: int) -> Builder:
    def builder(call: Call) -> Layer:
        source = _source(call, axes)
        kernel, stride, padding = _windows(call, axes)
        dilation = spread(call.integers("dilation", (1,)), axes, "dilation")
        ceil = call.flag("ceil_mode", False)
        op = MaxPool(kernel, stride, padding, padding, dilation, ceil)
        return Layer(op, (source.name,), outputs=(call.output,))

    return builder


def _average_pool(axes: int) -> Builder:
    def builder(call: Call) -> Layer:
        source = _source(call, axes)
        if call.arguments.get("divisor_override") is not None:
            raise NotUnderstoodError("it divides by a number of its own (divisor_override)")
        kernel, stride, padding = _windows(call, axes)
        op = AveragePool(
            kernel,
            stride,
            padding,
            padding,
            (1,) * axes,
            include_padding=call.flag("count_include_pad", True),
            ceil=call.flag("ceil_mode", False),
        )
        return Layer(op, (source.name,))

    return builder


def _adaptive_average_pool(axes: int) -> Builder:
    def builder(call: Call) -> Layer:
        source = _source(call, axes)
        _require_sizes(call, axes, call.integers("output_size", ()))
        return Layer(AdaptiveAveragePool(), (source.name,))

    return builder


def _adaptive_max_pool(axes: int) -> Builder:
    def builder(call: Call) -> Layer:
        source, output = _source(call, axes), call.output
        _require_sizes(call, axes, call.integers("output_size", ()))
        sizes, wanted = source.shape[2:], output.shape[2:]
        if wanted == (1,) * axes:
            spatial = tuple(range(2, axes + 2))
            return Layer(Reduce("max", spatial, True), (source.name,), outputs=(output,))
        if any(size % count for size, count in zip(sizes, wanted, strict=True)):
            raise NotUnderstoodError("its windows are of unequal size")
        kernel = tuple(size // count for size, count in zip(sizes, wanted, strict=True))
        op = MaxPool(kernel, kernel, (0,) * axes, (0,) * axes, (1,) * axes)
        return Layer(op, (source.name,), outputs=(output,))

    return builder


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


def _require_sizes(call: Call, axes: int, asked: tuple[int, ...]) -> None:
    """Refuse an output of other spatial sizes than the call asks for."""
    shape = call.output.shape
    if shape[2:] != spread(asked, axes, "output_size") or min(asked) < 1:
        raise NotUnderstoodError(f"its output is stated as {shape}, and it asks for {asked}")


def _resized(call: Call, source: Tensor) -> tuple[int, ...]:
    """The sizes that an interpolation asks for, directly or by scale."""
    if call.arguments.get("output_size") is not None:
        return call.integers("output_size", ())
    sizes = source.shape[2:]
    scales = _scales(call, len(sizes))[2:]
    if not scales:
        raise NotUnderstoodError("it states neither sizes nor scales")
    return tuple(math.floor(size * scale) for size, scale in zip(sizes, scales, strict=True))


def _resize(axes: int, mode: str) -> Builder:
    def builder(call: Call) -> Layer:
        source = _source(call, axes)
        _require_sizes(call, axes, _resized(call, source))
        if mode == "nearest":
            op = Resize("nearest", "asymmetric", "floor", _scales(call, axes))
        else:
            corners = call.flag("align_corners", False)
            coordinates = "align_corners" if corners else "half_pixel"
            op = Resize(mode, coordinates, scales=() if corners else _scales(call, axes))
        return Layer(op, (source.name,))

    return builder


def _nearest_exact(axes: int) -> Builder:
    """floor((i + 1/2) · input/output): no rounding mode of `Resize` breaks ties this way."""

    def builder(call: Call) -> Layer:
        source, wanted = _source(call, axes), call.output.shape
        scales = _scales(call, axes) or (0.0,) * (axes + 2)
        _require_sizes(call, axes, _resized(call, source))
        if max(wanted) > _MAX_SIZE:
            raise NotUnderstoodError("its output is too large")
        for axis in range(2, axes + 2):
            size, count = source.shape[axis], wanted[axis]
            step = 1 / Fraction(scales[axis]) if scales[axis] else Fraction(size, count)
            indices = tuple(min(int((i + Fraction(1, 2)) * step), size - 1) for i in range(count))
            op = Gather(axis, indices, (count,))
            shape = (*source.shape[:axis], count, *source.shape[axis + 1 :])
            if axis == axes + 1:
                return Layer(op, (source.name,))
            source = call.emit(op, (source,), shape)
        raise NotUnderstoodError("it has no spatial axes")

    return builder


BUILDERS: Mapping[str, Builder] = {
    **{f"aten.max_pool{d}d.default": _max_pool(d) for d in (1, 2, 3)},
    **{f"aten.max_pool{d}d_with_indices.default": _max_pool(d) for d in (1, 2, 3)},
    **{f"aten.avg_pool{d}d.default": _average_pool(d) for d in (1, 2, 3)},
    **{f"aten.adaptive_avg_pool{d}d.default": _adaptive_average_pool(d) for d in (1, 2, 3)},
    **{f"aten._adaptive_avg_pool{d}d.default": _adaptive_average_pool(d) for d in (2, 3)},
    **{f"aten.adaptive_max_pool{d}d.default": _adaptive_max_pool(d) for d in (1, 2, 3)},
    **{
        f"aten.upsample_{name}.{variant}": _resize(axes, mode)
        for name, axes, mode in (
            ("nearest1d", 1, "nearest"),
            ("nearest2d", 2, "nearest"),
            ("nearest3d", 3, "nearest"),
            ("linear1d", 1, "linear"),
            ("bilinear2d", 2, "linear"),
            ("trilinear3d", 3, "linear"),
            ("bicubic2d", 2, "cubic"),
        )
        for variant in ("vec", "default")
    },
    **{
        f"aten._upsample_nearest_exact{d}d.{variant}": _nearest_exact(d)
        for d in (1, 2, 3)
        for variant in ("vec", "default")
    },
}
