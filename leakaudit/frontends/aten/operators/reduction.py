"""Reductions over axes."""

from __future__ import annotations

import math
from functools import partial

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Call, Layer, affine, by_target, normal_axis
from leakaudit.frontends.aten.operators.activation import element
from leakaudit.frontends.aten.operators.arithmetic import difference
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.graph import Tensor


def _axes(call: Call, axes: int) -> tuple[int, ...]:
    """The reduced axes in order; none given means all."""
    given = () if call.arguments.get("dim") is None else call.integers("dim", ())
    found = sorted({normal_axis(axis, axes) for axis in given}) or list(range(axes))
    return tuple(found)[:axes]


def over(function: str, x: Tensor, axes: tuple[int, ...]) -> Layer:
    """A reduction that keeps its axes."""
    return Layer(ops.Reduce(function, axes, True), (x.name,))


def _reduce(call: Call, function: str) -> Layer:
    source = call.source()
    call.floating()
    axes = _axes(call, len(source.shape))
    op = ops.Reduce(function, axes, call.flag("keepdim", False))
    return Layer(op, (source.name,))


def _norm(call: Call) -> Layer:
    """The 1-norm or the 2-norm of each vector."""
    order = call.optional_number("ord" if "linalg" in call.target else "p", 2.0)
    if order not in (1.0, 2.0):
        raise NotUnderstoodError(f"it is a {order:g}-norm")
    return _reduce(call, "l1" if order == 1 else "l2")


def _variance(call: Call, root: bool) -> Layer:
    """mean((x - mean(x))²), with Bessel's correction unless it is switched off."""
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
    average = Layer(ops.Reduce("mean", axes, call.flag("keepdim", False)), (squared.name,))
    variance = call.computed(average, output.shape)
    corrected = affine(variance, count / (count - correction))
    return element(call.computed(corrected, output.shape), "sqrt") if root else corrected


BUILDERS = by_target(
    {
        "mean mean.dim": partial(_reduce, function="mean"),
        "sum sum.dim_IntList": partial(_reduce, function="sum"),
        "amax max max.dim": partial(_reduce, function="max"),
        "amin min min.dim": partial(_reduce, function="min"),
        "prod prod.dim_int": partial(_reduce, function="prod"),
        "logsumexp": partial(_reduce, function="log_sum_exp"),
        "linalg_vector_norm norm.ScalarOpt_dim norm.Scalar": _norm,
        "var var.dim var.correction": partial(_variance, root=False),
        "std std.dim std.correction": partial(_variance, root=True),
    }
)
