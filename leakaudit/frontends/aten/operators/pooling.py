"""Pooling over the spatial axes of (B, N, H_1..H_d)."""

from __future__ import annotations

from collections.abc import Mapping

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Builder, Call, Layer, spread
from leakaudit.frontends.aten.operators.reduction import over
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.graph import Tensor


def spatial_source(call: Call, axes: int) -> Tensor:
    """The first argument, which must have a batch axis, channels and so many spatial axes."""
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
        source = spatial_source(call, axes)
        kernel, stride, padding = _windows(call, axes)
        dilation = spread(call.integers("dilation", (1,)), axes, "dilation")
        ceil = call.flag("ceil_mode", False)
        op = ops.MaxPool(kernel, stride, padding, padding, dilation, ceil)
        return Layer(op, (source.name,), outputs=(call.output,))

    return builder


def _average_pool(axes: int) -> Builder:
    def builder(call: Call) -> Layer:
        source = spatial_source(call, axes)
        if call.arguments.get("divisor_override") is not None:
            raise NotUnderstoodError("it divides by a number of its own (divisor_override)")
        kernel, stride, padding = _windows(call, axes)
        op = ops.AveragePool(
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
        source = spatial_source(call, axes)
        require_sizes(call, axes, call.integers("output_size", ()))
        return Layer(ops.AdaptiveAveragePool(), (source.name,))

    return builder


def _adaptive_max_pool(axes: int) -> Builder:
    def builder(call: Call) -> Layer:
        source, output = spatial_source(call, axes), call.output
        require_sizes(call, axes, call.integers("output_size", ()))
        sizes, wanted = source.shape[2:], output.shape[2:]
        if wanted == (1,) * axes:
            spatial = tuple(range(2, axes + 2))
            return over("max", source, spatial, output)
        if any(size % count for size, count in zip(sizes, wanted, strict=True)):
            raise NotUnderstoodError("its windows are of unequal size")
        kernel = tuple(size // count for size, count in zip(sizes, wanted, strict=True))
        op = ops.MaxPool(kernel, kernel, (0,) * axes, (0,) * axes, (1,) * axes)
        return Layer(op, (source.name,), outputs=(output,))

    return builder


def require_sizes(call: Call, axes: int, asked: tuple[int, ...]) -> None:
    """Refuse an output of other spatial sizes than the call asks for."""
    shape = call.output.shape
    if shape[2:] != spread(asked, axes, "output_size") or min(asked) < 1:
        raise NotUnderstoodError(f"its output is stated as {shape}, and it asks for {asked}")


BUILDERS: Mapping[str, Builder] = {
    **{f"aten.max_pool{d}d.default": _max_pool(d) for d in (1, 2, 3)},
    **{f"aten.max_pool{d}d_with_indices.default": _max_pool(d) for d in (1, 2, 3)},
    **{f"aten.avg_pool{d}d.default": _average_pool(d) for d in (1, 2, 3)},
    **{f"aten.adaptive_avg_pool{d}d.default": _adaptive_average_pool(d) for d in (1, 2, 3)},
    **{f"aten._adaptive_avg_pool{d}d.default": _adaptive_average_pool(d) for d in (2, 3)},
    **{f"aten.adaptive_max_pool{d}d.default": _adaptive_max_pool(d) for d in (1, 2, 3)},
}
