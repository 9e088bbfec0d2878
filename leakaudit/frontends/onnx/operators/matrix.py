"""Matrix products: dense layers, products of activations, einsum, attention."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from leakaudit import operators as ops
from leakaudit.frontends.onnx.constants import FLOATS
from leakaudit.frontends.onnx.context import Builder, Context
from leakaudit.frontends.onnx.file import is_default
from leakaudit.frontends.onnx.node import NotUnderstoodError, integer, real, text
from leakaudit.frontends.onnx.operators.layers import bias_of
from leakaudit.graph import Parameter

_Bias = tuple[tuple[str, Parameter], ...]


def gemm(context: Context, node: onnx.NodeProto) -> None:
    """Gemm: a dense layer where B is stored, otherwise the product; with C, a sum."""
    alpha, beta = real(node, "alpha", 1.0), real(node, "beta", 1.0)
    stored = _stored_matrix(context, node) if integer(node, "transA", 0) == 0 else None
    parameters: _Bias = ()
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
        context.layer(node, ops.Scale(alpha), (product,))
        return
    if stored is None and alpha != 1:
        product = context.step(node, "scaled", ops.Scale(alpha), (product,), shape)
    if beta != 1:
        added = context.step(node, "offset", ops.Scale(beta), (added,), context.shape(added))
    context.layer(node, ops.Add(), (product, added))


def _matrix(context: Context, node: onnx.NodeProto, index: int, transpose: str) -> str:
    """An input of Gemm as the product reads it."""
    name = context.operand(node, index)
    shape = context.shape(name)
    if len(shape) != 2:
        raise NotUnderstoodError(f"its input {index} is not a matrix")
    if integer(node, transpose, 0) == 0:
        return name
    return context.step(node, transpose, ops.Transpose((1, 0)), (name,), shape[::-1])


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
    context.layer(
        node,
        op,
        (x,),
        (("weight", weight), *bias),
        output=add.output[0],
        origin="MatMul+Add",
    )
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


def _stored_bias(context: Context, name: str | None, out_features: int) -> _Bias | None:
    """The bias of a dense layer, None where it has to be added apart."""
    try:
        return bias_of(context, name, out_features)
    except NotUnderstoodError:
        return None


def _added_bias(
    context: Context, product: onnx.NodeProto, add: onnx.NodeProto, out_features: int
) -> _Bias:
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
    context.layer(node, ops.Einsum(_explicit(text(node, "equation", ""), ranks)), operands)


def _explicit(equation: str, ranks: Sequence[int]) -> str:
    """The equation with its output written out and letters in place of an ellipsis."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    counts = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=False)]
    letters = "".join(sorted(set(string.ascii_letters) - set(equation)))
    most = max((c for c, term in zip(counts, terms, strict=False) if "..." in term), default=0)
    wrong = any(c < 0 or (c and "..." not in t) for c, t in zip(counts, terms, strict=False))
    if len(terms) != len(ranks) or wrong or most > len(letters):
        raise NotUnderstoodError("its equation does not fit its inputs")
    if not arrow:
        once = sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1)
        right = ("..." if "..." in left else "") + "".join(once)
    shared = letters[:most]
    filled = [
        term.replace("...", shared[most - count :])
        for term, count in zip(terms, counts, strict=True)
    ]
    result = f"{','.join(filled)}->{right.replace('...', shared)}"
    if not set(result) <= set(string.ascii_letters + ",->"):
        raise NotUnderstoodError("its equation is not one of letters")
    return result


def attention(context: Context, node: onnx.NodeProto) -> None:
    """Attention without a cache, on (B, heads, T, E) or (B, T, heads · E)."""
    if any(context.optional(node, index) for index in (4, 5, 6)):
        raise NotUnderstoodError("it continues a sequence (past keys or lengths)")
    if real(node, "softcap", 0.0) != 0:
        raise NotUnderstoodError("it caps its scores (softcap)")
    if any(integer(node, f"{side}_window_size", -1) >= 0 for side in ("left", "right")):
        raise NotUnderstoodError("it attends within a window")
    names = [context.operand(node, index) for index in range(3)]
    rank = len(context.shape(names[0]))
    heads = {len(context.shape(name)) for name in names}
    if heads not in ({3}, {4}):
        raise NotUnderstoodError("its query, key and value do not have 3 or 4 axes each")
    mask = context.movable(node, 3) if context.optional(node, 3) else None
    if mask is not None and context.dtype(mask) not in FLOATS | {"bool"}:
        raise NotUnderstoodError("its mask is neither boolean nor floating")
    if rank == 3:
        names = _split_heads(context, node, names)
    q, k, v = (context.shape(name) for name in names)
    grouped = q[1] != k[1]
    if k[1] != v[1] or k[2] != v[2] or q[1] % k[1] or (q[0], k[0]) != (k[0], v[0]):
        raise NotUnderstoodError("its query, key and value do not fit each other")
    if mask is not None and context.shape(mask)[-1] != k[2]:
        raise NotUnderstoodError("its mask does not cover every key")
    scale = real(node, "scale", 1 / math.sqrt(max(q[3], 1)))
    op = ops.Attention(scale, integer(node, "is_causal", 0) != 0, grouped)
    inputs = (*names, *([mask] if mask else []))
    if rank == 4:
        context.layer(node, op, inputs)
        return
    y = context.step(node, "attention", op, inputs, (*q[:3], v[3]))
    swapped = (q[0], q[2], q[1], v[3])
    y = context.step(node, "tokens", ops.Transpose((0, 2, 1, 3)), (y,), swapped)
    context.layer(node, ops.Reshape(), (y,))


def _split_heads(context: Context, node: onnx.NodeProto, names: Sequence[str]) -> list[str]:
    """(B, T, heads · E) -> (B, heads, T, E) for query, key and value."""
    found = []
    for what, name in zip(("query", "key", "value"), names, strict=True):
        heads = integer(node, "q_num_heads" if what == "query" else "kv_num_heads", 0)
        batch, tokens, size = context.shape(name)
        if heads < 1 or size % heads:
            raise NotUnderstoodError(f"its {what} does not divide into its heads")
        shape = (batch, tokens, heads, size // heads)
        name = context.step(node, f"{what}_split", ops.Reshape(), (name,), shape)
        swapped = tuple(np.array(shape)[[0, 2, 1, 3]].tolist())
        found.append(
            context.step(node, f"{what}_heads", ops.Transpose((0, 2, 1, 3)), (name,), swapped)
        )
    return found


BUILDERS: Mapping[str, Builder] = {
    "Attention": attention,
    "Einsum": einsum,
    "Gemm": gemm,
    "MatMul": matmul,
}
