"""Normalisation and softmax."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx

from leakaudit import operators as ops
from leakaudit.frontends.build import NotUnderstoodError, axis_of
from leakaudit.frontends.onnx.context import Builder, Context
from leakaudit.frontends.onnx.node import integer, integer_list, real
from leakaudit.frontends.onnx.operators.activation import element
from leakaudit.frontends.onnx.operators.arithmetic import DIFFERENCE, PRODUCT, QUOTIENT, SUM
from leakaudit.frontends.onnx.operators.reduction import over
from leakaudit.frontends.onnx.operators.shape import regrouped
from leakaudit.frontends.onnx.parameters import reshaped
from leakaudit.graph import Parameter

FLATTENING_SOFTMAX = 13  # before it Softmax treats all axes from `axis` on as one


DEVIATION_OFFSET = 1e-9  # MeanVarianceNormalization adds it to the standard deviation


def batch_norm(context: Context, node: onnx.NodeProto) -> None:
    """BatchNormalization, by stored statistics or (training_mode) by those of the batch."""
    x = context.real(node, 0)
    if context.opset < 9 and integer(node, "spatial", 1) != 1:
        raise NotUnderstoodError("it normalises every element by itself (spatial = 0)")
    channels = context.shape(x)[1:2]
    training = integer(node, "training_mode", 0) != 0
    parameters = [
        ("scale", context.weight(context.optional(node, 1), "scale")),
        ("bias", context.weight(context.optional(node, 2), "bias")),
    ]
    if not training:
        parameters += [
            ("mean", context.statistic(context.optional(node, 3), "mean")),
            ("variance", context.statistic(context.optional(node, 4), "variance")),
        ]
    _check_channels(parameters, channels)
    op = ops.BatchNorm(real(node, "epsilon", 1e-5), training)
    context.layer(node, op, (x,), parameters)


def instance_norm(context: Context, node: onnx.NodeProto) -> None:
    """InstanceNormalization: as many groups as channels."""
    x = context.real(node, 0)
    _group_norm(context, node, x, context.shape(x)[1:2])


def group_norm(context: Context, node: onnx.NodeProto) -> None:
    """GroupNormalization with a scale and bias per channel (opset 21 and later)."""
    groups = integer(node, "num_groups", 0)
    _group_norm(context, node, context.real(node, 0), (groups,))


def _group_norm(context: Context, node: onnx.NodeProto, x: str, groups: tuple[int, ...]) -> None:
    shape = context.shape(x)
    if len(shape) < 3 or groups[0] < 1 or shape[1] % groups[0]:
        raise NotUnderstoodError("its groups do not divide its input's channels")
    parameters = [
        ("scale", context.weight(context.optional(node, 1), "scale")),
        ("bias", context.weight(context.optional(node, 2), "bias")),
    ]
    _check_channels(parameters, shape[1:2])
    op = ops.GroupNorm(groups[0], real(node, "epsilon", 1e-5))
    context.layer(node, op, (x,), parameters)


def _check_channels(parameters: Sequence[tuple[str, Parameter]], channels: tuple[int, ...]) -> None:
    for role, parameter in parameters:
        if parameter.shape != channels:
            raise NotUnderstoodError(f"its {role} does not have one value per channel")


def layer_norm(context: Context, node: onnx.NodeProto) -> None:
    """LayerNormalization; a scale or bias that is not stored is applied apart."""
    x = context.real(node, 0)
    axes = _last_axes(context, node, x)
    op = ops.LayerNorm(axes, real(node, "epsilon", 1e-5))
    _affine(context, node, op, x, axes)


def rms_norm(context: Context, node: onnx.NodeProto) -> None:
    """RMSNormalization; as LayerNormalization, without a bias."""
    x = context.real(node, 0)
    axes = _last_axes(context, node, x)
    _affine(context, node, ops.RmsNorm(axes, real(node, "epsilon", 1e-5)), x, axes)


def _last_axes(context: Context, node: onnx.NodeProto, x: str) -> int:
    rank = len(context.shape(x))
    return rank - axis_of(integer(node, "axis", -1), rank)


def _affine(context: Context, node: onnx.NodeProto, op: ops.Operator, x: str, axes: int) -> None:
    shape = context.shape(x)
    try:
        parameters = []
        for index, role in ((1, "scale"), (2, "bias")):
            name = context.optional(node, index)
            if name is not None:
                parameter = context.weight(name, role)
                if math.prod(parameter.shape) != math.prod(shape[len(shape) - axes :]):
                    raise NotUnderstoodError(f"its {role} is repeated over its axes")
                parameters.append((role, reshaped(parameter, shape[len(shape) - axes :])))
    except NotUnderstoodError:
        _affine_in_steps(context, node, op, x)
        return
    context.layer(node, op, (x,), parameters)


def _affine_in_steps(context: Context, node: onnx.NodeProto, op: ops.Operator, x: str) -> None:
    shape = context.shape(x)
    y = context.step(node, "normalised", op, (x,), shape)
    scale = context.operand(node, 1)
    if context.optional(node, 2) is None:
        context.layer(node, PRODUCT, (y, scale))
        return
    y = context.step(node, "scaled", PRODUCT, (y, scale), shape)
    context.layer(node, SUM, (y, context.operand(node, 2)))


def local_response_norm(context: Context, node: onnx.NodeProto) -> None:
    """LRN."""
    size = integer(node, "size", 0)
    if size < 1:
        raise NotUnderstoodError("its size is below 1")
    op = ops.LocalResponseNorm(
        size, real(node, "alpha", 1e-4), real(node, "beta", 0.75), real(node, "bias", 1.0)
    )
    context.layer(node, op, (context.real(node, 0),))


def lp_normalization(context: Context, node: onnx.NodeProto) -> None:
    """LpNormalization by the 1- or 2-norm."""
    x = context.real(node, 0)
    p = integer(node, "p", 2)
    if p not in (1, 2):
        raise NotUnderstoodError(f"its p is {p}")
    axis = axis_of(integer(node, "axis", -1), len(context.shape(x)))
    context.layer(node, ops.LpNormalization(axis, p), (x,))


def mean_variance_norm(context: Context, node: onnx.NodeProto) -> None:
    """MeanVarianceNormalization, as the sums, roots and quotients that define it."""
    x = context.real(node, 0)
    shape = context.shape(x)
    given = integer_list(node, "axes") or (0, 2, 3)
    axes = tuple(sorted({axis_of(axis, len(shape)) for axis in given}))
    reduced = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    average = over("mean", axes)
    mean = context.step(node, "mean", average, (x,), reduced)
    centred = context.step(node, "centred", DIFFERENCE, (x, mean), shape)
    square = context.step(node, "square", element("square"), (centred,), shape)
    variance = context.step(node, "variance", average, (square,), reduced)
    root = context.step(node, "root", element("sqrt"), (variance,), reduced)
    divisor = context.scaled(node, "divisor", root, 1.0, DEVIATION_OFFSET)
    context.layer(node, QUOTIENT, (centred, divisor))


def softmax(*, log: bool) -> Builder:
    """A builder for Softmax or LogSoftmax."""

    def build(context: Context, node: onnx.NodeProto) -> None:
        x = context.real(node, 0)
        shape = context.shape(x)
        flattens = context.opset < FLATTENING_SOFTMAX
        axis = axis_of(integer(node, "axis", 1 if flattens else -1), len(shape))
        if not flattens or math.prod(shape[axis + 1 :]) == 1:
            context.layer(node, ops.Softmax(axis, log), (x,))
            return
        flat = (math.prod(shape[:axis]), math.prod(shape[axis:]))
        x = regrouped(context, node, x, "flat", flat)
        y = context.step(node, "softmax", ops.Softmax(1, log), (x,), flat)
        regrouped(context, node, y)

    return build


BUILDERS: Mapping[str, Builder] = {
    "BatchNormalization": batch_norm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LRN": local_response_norm,
    "LayerNormalization": layer_norm,
    "LogSoftmax": softmax(log=True),
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance_norm,
    "RMSNormalization": rms_norm,
    "Softmax": softmax(log=False),
}
