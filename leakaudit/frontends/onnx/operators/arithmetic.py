"""Arithmetic between activations, parameters and constants, floating types only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx

from leakaudit import operators as ops
from leakaudit.frontends.masks import selected
from leakaudit.frontends.onnx.context import Builder, Context
from leakaudit.frontends.onnx.node import NotUnderstoodError


def binary(op: ops.Operator) -> Builder:
    """A builder for an operator of two operands."""

    def build(context: Context, node: onnx.NodeProto) -> None:
        context.layer(node, op, (context.operand(node, 0), context.operand(node, 1)))

    return build


def product(context: Context, node: onnx.NodeProto) -> None:
    """Mul; the zeros of a stored factor are counted: what they multiply is lost."""
    names = (context.operand(node, 0), context.operand(node, 1))
    factors = [factor for i in range(2) if (factor := context.stored(node, i)) is not None]
    shape = context.shape(node.output[0])
    zeros = max((selected(factor == 0, shape) for factor in factors), default=0)
    context.layer(node, ops.Mul(zeros), names)


def power(context: Context, node: onnx.NodeProto) -> None:
    """Pow; the exponent may be an integer constant."""
    context.layer(node, ops.Pow(), (context.operand(node, 0), context.movable(node, 1)))


def negate(context: Context, node: onnx.NodeProto) -> None:
    """Neg."""
    context.layer(node, ops.Scale(-1.0), (context.real(node, 0),))


def total(context: Context, node: onnx.NodeProto) -> None:
    """Sum of any number of operands."""
    names = [context.operand(node, index) for index in range(len(node.input))]
    if len(names) == 1:
        context.layer(node, ops.Identity(), names)
        return
    last = _sum_up(context, node, names[:-1])
    context.layer(node, ops.Add(), (last, names[-1]))


def mean(context: Context, node: onnx.NodeProto) -> None:
    """Mean of any number of operands."""
    names = [context.operand(node, index) for index in range(len(node.input))]
    added = _sum_up(context, node, names)
    context.layer(node, ops.Scale(1 / len(names)), (added,))


def _sum_up(context: Context, node: onnx.NodeProto, names: list[str]) -> str:
    added = names[0]
    for number, name in enumerate(names[1:], 1):
        shape = np.broadcast_shapes(context.shape(added), context.shape(name))
        added = context.step(node, f"sum{number}", ops.Add(), (added, name), shape)
    return added


def bounded(clip: Callable[[float], ops.Clip]) -> Builder:
    """A builder for Max or Min of an activation and one constant number."""

    def build(context: Context, node: onnx.NodeProto) -> None:
        if len(node.input) == 1:
            context.layer(node, ops.Identity(), (context.real(node, 0),))
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


def where(context: Context, node: onnx.NodeProto) -> None:
    """Where by a constant condition."""
    chosen = context.array(node, 0)
    shape = context.shape(node.output[0])
    if chosen.dtype.kind != "b":
        raise NotUnderstoodError("its condition is not boolean")
    sides = []
    for index, what in ((1, "then"), (2, "else")):
        name = context.optional(node, index) or ""
        if context.is_plain(name):
            # Numbers that hide something (minus infinity hides scores) are not trained.
            sides.append(context.new_constant(node, what, context.array(node, index)))
        else:
            sides.append(context.operand(node, index))
    if np.broadcast_shapes(chosen.shape, *map(context.shape, sides)) != shape:
        raise NotUnderstoodError("its output's shape contradicts its inputs")
    for name, whole in zip(sides, (chosen.all(), not chosen.any()), strict=True):
        if whole and context.is_activation(name) and context.shape(name) == shape:
            context.layer(node, ops.Identity(), (name,))
            return
    context.layer(node, ops.Where(selected(chosen, shape)), (context.movable(node, 0), *sides))


BUILDERS: Mapping[str, Builder] = {
    "Add": binary(ops.Add()),
    "Div": binary(ops.Div()),
    "Max": bounded(lambda end: ops.Clip(end, math.inf)),
    "Mean": mean,
    "Min": bounded(lambda end: ops.Clip(-math.inf, end)),
    "Mul": product,
    "Neg": negate,
    "Pow": power,
    "Sub": binary(ops.Sub()),
    "Sum": total,
    "Where": where,
}
