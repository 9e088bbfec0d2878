"""Convolutions and their adjoints."""

from __future__ import annotations

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Call, Layer, by_target, spread
from leakaudit.frontends.aten.values import Stored
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.graph import Tensor


def _geometry(
    call: Call,
) -> tuple[Tensor, Stored, tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
    """Input, weight, kernel, stride, dilation and groups of either kind of convolution."""
    source, weight = call.tensor("input"), call.plain_weight("weight")
    axes = len(weight.shape) - 2
    if not 1 <= axes <= 3:
        raise NotUnderstoodError(f"it has {axes} spatial axes")
    if len(source.shape) != axes + 2:
        raise NotUnderstoodError("its input has no batch axis")
    stride = spread(call.integers("stride", (1,)), axes, "stride")
    dilation = spread(call.integers("dilation", (1,)), axes, "dilation")
    groups = call.integer("groups", 1)
    if groups < 1 or min(stride) < 1 or min(dilation) < 1:
        raise NotUnderstoodError("its groups, stride or dilation is below 1")
    return source, weight, weight.shape[2:], stride, dilation, groups


def _convolution(call: Call) -> Layer:
    if call.flag("transposed", False):
        return _transposed_convolution(call)
    source, weight, kernel, stride, dilation, groups = _geometry(call)
    if source.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise NotUnderstoodError("its groups do not fit its channels")
    mode = call.arguments.get("padding")
    if mode == "valid":
        begin = end = (0,) * len(kernel)
    elif mode == "same":
        # torch puts the odd pixel of an even extent at the end.
        total = tuple(d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
        begin = tuple(t // 2 for t in total)
        end = tuple(t - b for t, b in zip(total, begin, strict=True))
    else:
        begin = end = spread(call.integers("padding", (0,)), len(kernel), "padding")
    return Layer(
        ops.Conv(kernel, stride, begin, end, dilation, groups),
        (source.name,),
        (("weight", weight.name), *call.optional("bias", "bias", weight.shape[:1])),
    )


def _transposed_convolution(call: Call) -> Layer:
    source, weight, kernel, stride, dilation, groups = _geometry(call)
    if source.shape[1] != weight.shape[0] or weight.shape[0] % groups:
        raise NotUnderstoodError("its groups do not fit its channels")
    axes = len(kernel)
    padding = spread(call.integers("padding", (0,)), axes, "padding")
    further = spread(call.integers("output_padding", (0,)), axes, "output_padding")
    end = tuple(p - f for p, f in zip(padding, further, strict=True))
    filters = weight.shape[1] * groups
    return Layer(
        ops.ConvTranspose(kernel, stride, padding, end, dilation, groups),
        (source.name,),
        (("weight", weight.name), *call.optional("bias", "bias", (filters,))),
    )


BUILDERS = by_target(
    {
        **{f"conv{d}d conv{d}d.padding": _convolution for d in (1, 2, 3)},
        "convolution _convolution": _convolution,
        "conv_transpose1d conv_transpose2d.input conv_transpose3d.input": _transposed_convolution,
    }
)
