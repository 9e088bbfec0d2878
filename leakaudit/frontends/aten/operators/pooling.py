"""Pooling over the spatial axes of (B, N, H_1..H_d)."""

from __future__ import annotations

from functools import partial

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Call, Layer, by_target, spread
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


def _max_pool(call: Call, axes: int) -> Layer:
    source = spatial_source(call, axes)
    kernel, stride, padding = _windows(call, axes)
    dilation = spread(call.integers("dilation", (1,)), axes, "dilation")
    ceil = call.flag("ceil_mode", False)
    return Layer(ops.MaxPool(kernel, stride, padding, padding, dilation, ceil), (source.name,))


def _average_pool(call: Call, axes: int) -> Layer:
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


def _adaptive_average_pool(call: Call, axes: int) -> Layer:
    source = spatial_source(call, axes)
    require_sizes(call, axes, call.integers("output_size", ()))
    return Layer(ops.AdaptiveAveragePool(), (source.name,))


def _adaptive_max_pool(call: Call, axes: int) -> Layer:
    source = spatial_source(call, axes)
    require_sizes(call, axes, call.integers("output_size", ()))
    sizes, wanted = source.shape[2:], call.output.shape[2:]
    if wanted == (1,) * axes:
        return over("max", source, tuple(range(2, axes + 2)))
    if any(size % count for size, count in zip(sizes, wanted, strict=True)):
        raise NotUnderstoodError("its windows are of unequal size")
    kernel = tuple(size // count for size, count in zip(sizes, wanted, strict=True))
    op = ops.MaxPool(kernel, kernel, (0,) * axes, (0,) * axes, (1,) * axes)
    return Layer(op, (source.name,))


def require_sizes(call: Call, axes: int, asked: tuple[int, ...]) -> None:
    """Refuse an output of other spatial sizes than the call asks for."""
    shape = call.output.shape
    if shape[2:] != spread(asked, axes, "output_size") or min(asked) < 1:
        raise NotUnderstoodError(f"its output is stated as {shape}, and it asks for {asked}")


BUILDERS = by_target(
    {
        **{
            f"max_pool{d}d max_pool{d}d_with_indices": partial(_max_pool, axes=d) for d in (1, 2, 3)
        },
        **{f"avg_pool{d}d": partial(_average_pool, axes=d) for d in (1, 2, 3)},
        **{f"adaptive_avg_pool{d}d": partial(_adaptive_average_pool, axes=d) for d in (1, 2, 3)},
        **{f"_adaptive_avg_pool{d}d": partial(_adaptive_average_pool, axes=d) for d in (2, 3)},
        **{f"adaptive_max_pool{d}d": partial(_adaptive_max_pool, axes=d) for d in (1, 2, 3)},
    }
)
