"""Arithmetic between activations, parameters and constants, floating types only."""

from __future__ import annotations

import numpy as np
import onnx

from leakaudit import operators as ops
from leakaudit.frontends.build import lost_elements
from leakaudit.frontends.onnx.context import Builder, Builders, Context
from leakaudit.frontends.onnx.operators.activation import silu

DIFFERENCE, PRODUCT, QUOTIENT, SUM = ops.Sub(), ops.Mul(), ops.Div(), ops.Add()


def binary(op: ops.Operator) -> Builder:
    """A builder for an operator of two operands."""

    def build(context: Context, node: onnx.NodeProto) -> None:
        context.layer(node, op, (context.operand(node, 0), context.operand(node, 1)))

    return build


def product(context: Context, node: onnx.NodeProto) -> None:
    """Mul; the zeros of a stored factor are counted: what they multiply is lost."""
    names = (context.operand(node, 0), context.operand(node, 1))
    shape = context.shape(node.output[0])
    zeros = lost_elements(context.stored(node, 0), context.stored(node, 1), shape=shape)
    context.layer(node, ops.Mul(zeros), names)


def power(context: Context, node: onnx.NodeProto) -> None:
    """Pow; the exponent may be an integer constant."""
    context.layer(node, ops.Pow(), (context.operand(node, 0), context.movable(node, 1)))


def _negate(context: Context, node: onnx.NodeProto) -> None:
    context.affine(node, context.real(node, 0), -1.0)


def total(context: Context, node: onnx.NodeProto) -> None:
    """Sum of any number of operands."""
    *names, last = _operands(context, node)
    if names:
        context.layer(node, SUM, (_sum_up(context, node, names), last))
    else:
        context.same(node, last)


def mean(context: Context, node: onnx.NodeProto) -> None:
    """Mean of any number of operands."""
    names = _operands(context, node)
    context.affine(node, _sum_up(context, node, names), 1 / len(names))


def _operands(context: Context, node: onnx.NodeProto) -> list[str]:
    return [context.operand(node, index) for index in range(len(node.input))]


def _sum_up(context: Context, node: onnx.NodeProto, names: list[str]) -> str:
    added = names[0]
    for number, name in enumerate(names[1:], 1):
        shape = np.broadcast_shapes(context.shape(added), context.shape(name))
        added = context.step(node, f"sum{number}", SUM, (added, name), shape)
    return added


def swiglu(context: Context, node: onnx.NodeProto) -> None:
    """SwiGLU: swish of the first input times the second."""
    gate, value = context.operand(node, 0), context.operand(node, 1)
    gate = context.step(node, "gate", silu(node), (gate,), context.shape(gate))
    context.layer(node, PRODUCT, (gate, value))


BUILDERS: Builders = {
    "Add": binary(SUM),
    "Div": binary(QUOTIENT),
    "Mean": mean,
    "Mul": product,
    "Neg": _negate,
    "Pow": power,
    "Sub": binary(DIFFERENCE),
    "Sum": total,
    "SwiGLU": swiglu,
}
