"""Normalisation and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx

from leakaudit import operators as ops
from leakaudit.frontends.build import NotUnderstoodError, axis_of
from leakaudit.frontends.onnx.context import Builder, Builders, Context, Roles
from leakaudit.frontends.onnx.node import integer, integer_list, real
from leakaudit.frontends.onnx.operators.activation import element, unary
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
    training = integer(node, "training_mode", 0) != 0
    parameters = _scale_and_bias(context, node)
    if not training:
        for index, role in ((3, "mean"), (4, "variance")):
            parameters.append((role, context.statistic(context.optional(node, index), role)))
    op = ops.BatchNorm(real(node, "epsilon", 1e-5), training)
    _per_channel(context, node, op, x, parameters)


def group_norm(context: Context, node: onnx.NodeProto) -> None:
    """GroupNormalization with a scale and bias per channel (opset 21 and later).

    InstanceNormalization is the one with as many groups as channels.
    """
    x = context.real(node, 0)
    shape = context.shape(x)
    by_channel = node.op_type == "InstanceNormalization"
    groups = shape[1] if by_channel else integer(node, "num_groups", 0)
    if len(shape) < 3 or groups < 1 or shape[1] % groups:
        raise NotUnderstoodError("its groups do not divide its input's channels")
    op = ops.GroupNorm(groups, real(node, "epsilon", 1e-5))
    _per_channel(context, node, op, x, _scale_and_bias(context, node))


def _scale_and_bias(context: Context, node: onnx.NodeProto) -> list[tuple[str, Parameter]]:
    roles = ((1, "scale"), (2, "bias"))
    return [(role, context.weight(context.optional(node, index), role)) for index, role in roles]


def _per_channel(
    context: Context, node: onnx.NodeProto, op: ops.Operator, x: str, parameters: Roles
) -> None:
    for role, parameter in parameters:
        if parameter.shape != context.shape(x)[1:2]:
            raise NotUnderstoodError(f"its {role} does not have one value per channel")
    context.layer(node, op, (x,), parameters)


def layer_norm(kind: Callable[[int, float], ops.Operator]) -> Builder:
    """A builder for LayerNormalization or RMSNormalization.

    A scale or bias that is not stored is applied apart.
    """

    def build(context: Context, node: onnx.NodeProto) -> None:
        x = context.real(node, 0)
        rank = len(context.shape(x))
        axes = rank - axis_of(integer(node, "axis", -1), rank)
        _affine(context, node, kind(axes, real(node, "epsilon", 1e-5)), x, axes)

    return build


def _affine(context: Context, node: onnx.NodeProto, op: ops.Operator, x: str, axes: int) -> None:
    normalised = context.shape(x)[-axes:]
    parameters = []
    try:
        for index, role in ((1, "scale"), (2, "bias")):
            name = context.optional(node, index)
            if name is not None:
                parameter = context.weight(name, role)
                if math.prod(parameter.shape) != math.prod(normalised):
                    raise NotUnderstoodError(f"its {role} is repeated over its axes")
                parameters.append((role, reshaped(parameter, normalised)))
    except NotUnderstoodError:
        _affine_in_steps(context, node, op, x)
    else:
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


def _local_response_norm(node: onnx.NodeProto) -> ops.Operator:
    size = integer(node, "size", 0)
    if size < 1:
        raise NotUnderstoodError("its size is below 1")
    return ops.LocalResponseNorm(
        size, real(node, "alpha", 1e-4), real(node, "beta", 0.75), real(node, "bias", 1.0)
    )


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


BUILDERS: Builders = {
    "BatchNormalization": batch_norm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": group_norm,
    "LRN": unary(_local_response_norm),
    "LayerNormalization": layer_norm(ops.LayerNorm),
    "LogSoftmax": softmax(log=True),
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance_norm,
    "RMSNormalization": layer_norm(ops.RmsNorm),
    "Softmax": softmax(log=False),
}
