"""Reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Builder, Call, Layer, affine, normal_axis
from leakaudit.frontends.aten.operators.activation import element
from leakaudit.frontends.aten.operators.arithmetic import difference
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.graph import Tensor


def _axes(call: Call, axes: int) -> tuple[int, ...]:
    """The reduced axes in order; none given means all."""
    given = () if call.arguments.get("dim") is None else call.integers("dim", ())
    found = sorted({normal_axis(axis, axes) for axis in given}) or list(range(axes))
    return tuple(found)[:axes]


def over(function: str, x: Tensor, axes: tuple[int, ...], *outputs: Tensor) -> Layer:
    """A reduction that keeps its axes."""
    return Layer(ops.Reduce(function, axes, True), (x.name,), outputs=outputs)


def _reduce(function: str) -> Builder:
    def builder(call: Call) -> Layer:
        source = call.source()
        call.floating()
        axes = _axes(call, len(source.shape))
        op = ops.Reduce(function, axes, call.flag("keepdim", False))
        return Layer(op, (source.name,), outputs=(call.output,))

    return builder


def _norm(call: Call) -> Layer:
    """The 1-norm or the 2-norm of each vector."""
    order = call.optional_number("ord" if "linalg" in call.target else "p", 2.0)
    if order not in (1.0, 2.0):
        raise NotUnderstoodError(f"it is a {order:g}-norm")
    return _reduce("l1" if order == 1 else "l2")(call)


def _variance(root: bool) -> Builder:
    """mean((x - mean(x))²), with Bessel's correction unless it is switched off."""

    def builder(call: Call) -> Layer:
        source = call.source()
        call.floating()
        axes = _axes(call, len(source.shape))
        count = math.prod(source.shape[axis] for axis in axes)
        if "unbiased" in call.arguments or "correction" not in call.arguments:
            correction = 1.0 if call.flag("unbiased", True) else 0.0
        else:
            correction = call.optional_number("correction", 1.0)
        if count <= correction:
            raise NotUnderstoodError("it has too few elements")
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(source.shape))
        mean = call.computed(over("mean", source, axes), kept)
        centred = call.computed(difference(source, mean), source.shape)
        squared = call.computed(element(centred, "square"), source.shape)
        output = call.output
        variance = call.emit(
            ops.Reduce("mean", axes, call.flag("keepdim", False)), (squared,), output.shape
        )
        corrected = affine(variance, count / (count - correction))
        return element(call.computed(corrected, output.shape), "sqrt") if root else corrected

    return builder


BUILDERS: Mapping[str, Builder] = {
    **dict.fromkeys(("aten.mean.default", "aten.mean.dim"), _reduce("mean")),
    **dict.fromkeys(("aten.sum.default", "aten.sum.dim_IntList"), _reduce("sum")),
    **dict.fromkeys(("aten.amax.default", "aten.max.default", "aten.max.dim"), _reduce("max")),
    **dict.fromkeys(("aten.amin.default", "aten.min.default", "aten.min.dim"), _reduce("min")),
    **dict.fromkeys(("aten.prod.default", "aten.prod.dim_int"), _reduce("prod")),
    "aten.logsumexp.default": _reduce("log_sum_exp"),
    "aten.linalg_vector_norm.default": _norm,
    "aten.norm.ScalarOpt_dim": _norm,
    "aten.norm.Scalar": _norm,
    **dict.fromkeys(
        ("aten.var.default", "aten.var.dim", "aten.var.correction"), _variance(root=False)
    ),
    **dict.fromkeys(
        ("aten.std.default", "aten.std.dim", "aten.std.correction"), _variance(root=True)
    ),
}
