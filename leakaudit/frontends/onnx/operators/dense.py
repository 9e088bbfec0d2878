"""Matrix products: dense layers, products of activations, einsum."""

from __future__ import annotations

import math
from dataclasses import replace

import onnx

from leakaudit import operators as ops
from leakaudit.frontends.build import NotUnderstoodError, explicit_equation
from leakaudit.frontends.onnx.context import Builders, Context, Roles
from leakaudit.frontends.onnx.file import is_default
from leakaudit.frontends.onnx.node import integer, real, text
from leakaudit.frontends.onnx.operators.arithmetic import SUM
from leakaudit.frontends.onnx.operators.shape import transposed
from leakaudit.frontends.onnx.parameters import reshaped
from leakaudit.graph import Parameter


def bias_of(context: Context, name: str | None, out_features: int) -> Roles:
    """The bias as a vector of one number per output, or nothing where there is none."""
    if name is None:
        return ()
    bias = context.weight(name, "bias")
    if bias.shape[-1:] != (out_features,) or math.prod(bias.shape) != out_features:
        raise NotUnderstoodError(f"its bias does not have one value for each of {out_features}")
    return (("bias", reshaped(bias, (out_features,))),)


def gemm(context: Context, node: onnx.NodeProto) -> None:
    """Gemm: a dense layer where B is stored, otherwise the product; with C, a sum."""
    alpha, beta = real(node, "alpha", 1.0), real(node, "beta", 1.0)
    stored = _stored_matrix(context, node) if integer(node, "transA", 0) == 0 else None
    parameters: Roles = ()
    op: ops.Operator = ops.MatMul()
    if stored is None:
        inputs = [_matrix(context, node, 0, "transA"), _matrix(context, node, 1, "transB")]
    else:
        inputs, (weight, flipped) = [context.real(node, 0)], stored
        transposed = (integer(node, "transB", 0) == 0) is not flipped
        dense = _linear(context, inputs[0], weight, transposed)
        bias = _stored_bias(context, context.optional(node, 2), dense.out_features)
        op, parameters = replace(dense, alpha=alpha), (("weight", weight),)
        if bias is not None:
            layer = replace(dense, alpha=alpha, beta=beta)
            context.layer(node, layer, inputs, (*parameters, *bias))
            return
    added = context.operand(node, 2) if context.optional(node, 2) else None
    if added is None and (stored is not None or alpha == 1):
        context.layer(node, op, inputs, parameters)
        return
    shape = context.shape(node.output[0])
    product = context.step(node, "product", op, inputs, shape, parameters)
    if added is None:
        context.affine(node, product, alpha)
        return
    if stored is None:
        product = context.scaled(node, "scaled", product, alpha)
    added = context.scaled(node, "offset", added, beta)
    context.layer(node, SUM, (product, added))


def _matrix(context: Context, node: onnx.NodeProto, index: int, transpose: str) -> str:
    """An input of Gemm as the product reads it."""
    name = context.operand(node, index)
    shape = context.shape(name)
    if len(shape) != 2:
        raise NotUnderstoodError(f"its input {index} is not a matrix")
    if integer(node, transpose, 0) == 0:
        return name
    return transposed(context, node, transpose, name, (1, 0))


def matmul(context: Context, node: onnx.NodeProto) -> None:
    """MatMul with a stored matrix, together with the Add of a stored vector that follows it.

    Any other product is one of two operands.
    """
    stored = _stored_matrix(context, node)
    if stored is None:
        context.layer(node, ops.MatMul(), (context.operand(node, 0), context.operand(node, 1)))
        return
    x, (weight, flipped) = context.real(node, 0), stored
    op = _linear(context, x, weight, not flipped)
    follower = context.only_reader(node.output[0])
    bias = () if follower is None else _added_bias(context, node, follower[1], op.out_features)
    if follower is None or not bias:
        context.layer(node, op, (x,), (("weight", weight),))
        return
    index, add = follower
    roles, output = (("weight", weight), *bias), add.output[0]
    context.layer(node, op, (x,), roles, output=output, origin="MatMul+Add")
    context.absorbed.add(index)


def _stored_matrix(context: Context, node: onnx.NodeProto) -> tuple[Parameter, bool] | None:
    """The second input as the weight of a dense layer, and whether it is stored transposed.

    None where it is no stored matrix, or where the first input is not an activation with a batch.
    """
    first, name = context.optional(node, 0), context.optional(node, 1)
    if not context.is_activation(first) or len(context.shape(first or "")) < 2:
        return None
    if name is None or not context.is_stored(name) or len(context.shape(name)) != 2:
        return None
    try:
        return context.weight(name), False
    except NotUnderstoodError:
        # A table that is read in two ways (tied embeddings) is one parameter with two uses.
        source = context.transposed_weight(name)
        return None if source is None else (source, True)


def _stored_bias(context: Context, name: str | None, out_features: int) -> Roles | None:
    """The bias of a dense layer, None where it has to be added apart."""
    try:
        return bias_of(context, name, out_features)
    except NotUnderstoodError:
        return None


def _added_bias(
    context: Context, product: onnx.NodeProto, add: onnx.NodeProto, out_features: int
) -> Roles:
    """The stored vector that `add` adds to a product, or nothing where it adds something else."""
    if add.op_type != "Add" or not is_default(add.domain) or len(add.output) != 1:
        return ()
    others = [name for name in add.input if name != product.output[0]]
    if len(others) != 1 or not context.is_stored(others[0]):
        return ()
    if context.shape(add.output[0]) != context.shape(product.output[0]):
        return ()
    return _stored_bias(context, others[0], out_features) or ()


def _linear(context: Context, x: str, weight: Parameter, transposed: bool) -> ops.Linear:
    features = weight.shape if transposed else weight.shape[::-1]
    if context.shape(x)[-1] != features[0]:
        raise NotUnderstoodError("its weight does not fit its input")
    return ops.Linear(features[0], features[1], transposed)


def einsum(context: Context, node: onnx.NodeProto) -> None:
    """Einsum of one or two inputs."""
    operands = [context.operand(node, index) for index in range(len(node.input))]
    if not 1 <= len(operands) <= 2:
        raise NotUnderstoodError(f"it has {len(operands)} inputs, and one or two are understood")
    ranks = [len(context.shape(name)) for name in operands]
    context.layer(node, ops.Einsum(explicit_equation(text(node, "equation", ""), ranks)), operands)


BUILDERS: Builders = {
    "Einsum": einsum,
    "Gemm": gemm,
    "MatMul": matmul,
}
