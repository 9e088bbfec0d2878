"""Arithmetic between activations, parameters and constants, floating types only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx

from leakaudit.frontends.onnx_context import Builder, Context
from leakaudit.frontends.onnx_node import NotUnderstoodError
from leakaudit.graph import operators as ops


def binary(op: ops.Operator) -> Builder:
    """A builder for an operator of two operands."""

    def build(context: Context, node: onnx.NodeProto) -> None:
        context.layer(node, op, (context.operand(node, 0), context.operand(node, 1)))

    return build


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
    """Where by a constant condition: each side times 1 or 0 for its places, and the sum of them.

    A side of plain numbers keeps them (minus infinity hides scores), 0 elsewhere.
    """
    chosen = context.array(node, 0)
    shape = context.shape(node.output[0])
    if chosen.dtype.kind != "b":
        raise NotUnderstoodError("its condition is not boolean")
    sides = []
    for index, places, what in ((1, chosen, "then"), (2, ~chosen, "else")):
        name = context.optional(node, index) or ""
        dtype = context.dtype(node.output[0])
        if context.is_plain(name):
            number = np.where(places, context.array(node, index), 0).astype(dtype)
            sides.append((context.new_constant(node, what, number), ""))
            continue
        mask = context.new_constant(node, f"{what}_mask", places.astype(dtype))
        sides.append((context.operand(node, index), mask))
    terms = []
    for (name, mask), what in zip(sides, ("then", "else"), strict=True):
        if mask:
            size = np.broadcast_shapes(context.shape(name), chosen.shape)
            name = context.step(node, f"{what}_chosen", ops.Mul(), (name, mask), size)
        terms.append(name)
    if np.broadcast_shapes(*(context.shape(name) for name in terms)) != shape:
        raise NotUnderstoodError("its output's shape contradicts its inputs")
    context.layer(node, ops.Add(), terms)


BUILDERS: Mapping[str, Builder] = {
    "Add": binary(ops.Add()),
    "Div": binary(ops.Div()),
    "Max": bounded(lambda end: ops.Clip(end, math.inf)),
    "Mean": mean,
    "Min": bounded(lambda end: ops.Clip(-math.inf, end)),
    "Mul": binary(ops.Mul()),
    "Neg": negate,
    "Pow": power,
    "Sub": binary(ops.Sub()),
    "Sum": total,
    "Where": where,
}
