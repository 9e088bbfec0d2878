"""Scaled dot-product attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx

from leakaudit import operators as ops
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.frontends.onnx.context import Builders, Context
from leakaudit.frontends.onnx.inputs import FLOATS
from leakaudit.frontends.onnx.node import integer, real
from leakaudit.frontends.onnx.operators.shape import regrouped, transposed


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
    y = transposed(context, node, "tokens", y, (0, 2, 1, 3))
    regrouped(context, node, y)


def _split_heads(context: Context, node: onnx.NodeProto, names: Sequence[str]) -> list[str]:
    """(B, T, heads · E) -> (B, heads, T, E) for query, key and value."""
    found = []
    for what, name in zip(("query", "key", "value"), names, strict=True):
        heads = integer(node, "q_num_heads" if what == "query" else "kv_num_heads", 0)
        batch, tokens, size = context.shape(name)
        if heads < 1 or size % heads:
            raise NotUnderstoodError(f"its {what} does not divide into its heads")
        shape = (batch, tokens, heads, size // heads)
        name = regrouped(context, node, name, f"{what}_split", shape)
        found.append(transposed(context, node, f"{what}_heads", name, (0, 2, 1, 3)))
    return found


BUILDERS: Builders = {
    "Attention": attention,
}
