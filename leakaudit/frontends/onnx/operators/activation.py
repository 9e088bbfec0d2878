"""Activation functions and other functions of each element; what passes its input on."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx

from leakaudit import operators as ops
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.frontends.onnx.context import Builder, Builders, Context
from leakaudit.frontends.onnx.inputs import FLOATS, dtype_name
from leakaudit.frontends.onnx.node import integer, real, text
from leakaudit.frontends.onnx.parameters import reshaped


def element(function: str) -> ops.Operator:
    """A function of each element."""
    return ops.Elementwise(function)


def silu(node: onnx.NodeProto) -> ops.Operator:
    """x · sigmoid(alpha · x) with the node's alpha."""
    return ops.Silu(real(node, "alpha", 1.0))


def unary(read: Callable[[onnx.NodeProto], ops.Operator]) -> Builder:
    """A builder for a function of each element, which `read` takes from the node's attributes."""

    def build(context: Context, node: onnx.NodeProto) -> None:
        context.layer(node, read(node), (context.real(node, 0),))

    return build


def plain(op: ops.Operator) -> Builder:
    """A builder for a function of each element without attributes."""
    return unary(lambda _: op)


def _celu(node: onnx.NodeProto) -> ops.Operator:
    alpha = real(node, "alpha", 1.0)
    if alpha <= 0:
        raise NotUnderstoodError("its alpha is not positive")
    return ops.Celu(alpha)


def _selu(node: onnx.NodeProto) -> ops.Operator:
    default = ops.Selu()
    return ops.Selu(real(node, "alpha", default.alpha), real(node, "gamma", default.gamma))


def _gelu(node: onnx.NodeProto) -> ops.Operator:
    approximate = text(node, "approximate", "none")
    if approximate not in ("none", "tanh"):
        raise NotUnderstoodError(f"its approximation is {approximate!r}")
    return ops.Gelu(approximate == "tanh")


def clip(context: Context, node: onnx.NodeProto) -> None:
    """Clip; its ends are attributes before opset 11 and constants from then on."""
    x = context.real(node, 0)
    if context.opset < 11:
        low, high = real(node, "min", -math.inf), real(node, "max", math.inf)
    else:
        first, second = context.number(node, 1), context.number(node, 2)
        low = -math.inf if first is None else first
        high = math.inf if second is None else second
    if math.isnan(low) or math.isnan(high):
        raise NotUnderstoodError("one of its ends is not a number")
    context.layer(node, ops.Clip(min(low, high), high), (x,))  # crossed ends: all become `high`


def bounded(clip: Callable[[float], ops.Clip]) -> Builder:
    """A builder for Max or Min of an activation and one constant number."""

    def build(context: Context, node: onnx.NodeProto) -> None:
        if len(node.input) == 1:
            context.same(node, context.real(node, 0))
            return
        if len(node.input) != 2:
            raise NotUnderstoodError(f"it compares {len(node.input)} inputs")
        first = 0 if context.is_activation(node.input[0]) else 1
        x = context.real(node, first)
        if context.is_activation(node.input[1 - first]):
            raise NotUnderstoodError("it compares two activations")
        end = context.number(node, 1 - first)
        if end is None or math.isnan(end) or context.shape(x) != context.shape(node.output[0]):
            raise NotUnderstoodError("its bound is not one number")
        context.layer(node, clip(end), (x,))

    return build


def prelu(context: Context, node: onnx.NodeProto) -> None:
    """PRelu with one slope, or one per channel (axis 1)."""
    x = context.real(node, 0)
    slope = context.weight(context.optional(node, 1), "slope")
    count = math.prod(slope.shape)
    shape = context.shape(x)
    rank = len(shape)
    # The slope is broadcast from the last axis, so (C, 1, 1) stands on axis 1 of (B, C, H, W).
    aligned = (1,) * (rank - len(slope.shape)) + slope.shape
    if count != 1 and (rank < 2 or aligned[1:2] != (count,) or shape[1] != count):
        raise NotUnderstoodError("its slopes are neither one nor one per channel")
    context.layer(node, ops.PRelu(), (x,), (("slope", reshaped(slope, (count,))),))


def dropout(context: Context, node: onnx.NodeProto) -> None:
    """Dropout passes its input on, unless the file switches training on."""
    training = context.optional(node, 2)
    if training is not None and context.flag(training) is not False:
        raise NotUnderstoodError("it drops elements (training_mode): export the model in eval mode")
    context.same(node, context.real(node, 0))


def identity(context: Context, node: onnx.NodeProto) -> None:
    """Identity, of any type."""
    context.same(node, context.activation(node, 0))


def cast(context: Context, node: onnx.NodeProto) -> None:
    """Cast and CastLike between floating types, or to the type the input has already."""
    x = context.activation(node, 0)
    wanted = integer(node, "to", 0)
    target = dtype_name(wanted) if node.op_type == "Cast" else context.dtype(node.input[1])
    source = context.dtype(x)
    if source != target and not {source, target} <= FLOATS:
        raise NotUnderstoodError(f"it turns {source} into {target}")
    context.same(node, x)


ELEMENTWISE = (
    *("Abs", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Log", "Reciprocal", "Round"),
    *("Sign", "Sin", "Sinh", "Sqrt", "Tan", "Acos", "Acosh", "Asin", "Asinh", "Atanh"),
)

BUILDERS: Builders = {
    "Atan": plain(ops.ArcTan()),
    "Cast": cast,
    "CastLike": cast,
    "Celu": unary(_celu),
    "Clip": clip,
    "Dropout": dropout,
    "Elu": unary(lambda node: ops.Elu(real(node, "alpha", 1.0))),
    "Gelu": unary(_gelu),
    "HardSigmoid": unary(
        lambda node: ops.HardSigmoid(real(node, "alpha", 0.2), real(node, "beta", 0.5))
    ),
    "HardSwish": plain(ops.HardSwish()),
    "Identity": identity,
    "LeakyRelu": unary(lambda node: ops.LeakyRelu(real(node, "alpha", 0.01))),
    "Max": bounded(lambda end: ops.Clip(end, math.inf)),
    "Min": bounded(lambda end: ops.Clip(-math.inf, end)),
    "Mish": plain(ops.Mish()),
    "PRelu": prelu,
    "Relu": plain(ops.Relu()),
    "Selu": unary(_selu),
    "Sigmoid": plain(ops.Sigmoid()),
    "Softplus": plain(ops.Softplus()),
    "Softsign": plain(ops.Softsign()),
    "Swish": unary(silu),
    "Tanh": plain(ops.Tanh()),
    **{name: plain(element(name.lower())) for name in ELEMENTWISE},
}
