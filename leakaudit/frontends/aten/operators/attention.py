"""Scaled dot-product attention, and the softmax that decomposed attention guards."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Builder, Call, Layer
from leakaudit.frontends.aten.values import Value
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.graph import Tensor


def _attention(call: Call) -> Layer:
    if call.number("dropout_p", 0.0) != 0:
        raise NotUnderstoodError(
            "dropout is active: export the model in evaluation mode (model.eval())"
        )
    q, k, v = (call.operand(name) for name in ("query", "key", "value"))
    if min(len(q.shape), len(k.shape), len(v.shape)) < 2:
        raise NotUnderstoodError("its query, key or value has no tokens axis")
    scale = call.optional_number("scale", 1 / math.sqrt(max(q.shape[-1], 1)))
    inputs = [q.name, k.name, v.name]
    mask = next(
        (call.arguments[name] for name in ("attn_mask", "attn_bias") if name in call.arguments),
        None,
    )
    additive = None if mask is None else _additive_mask(call, mask)
    if additive is not None:
        inputs.append(additive.name)
    return Layer(
        ops.Attention(
            scale, causal=call.flag("is_causal", False), grouped=call.flag("enable_gqa", False)
        ),
        tuple(inputs),
        outputs=(call.output,),
    )


def _additive_mask(call: Call, mask: Value) -> Tensor | None:
    """The mask as numbers to add; None for one that hides nothing."""
    operand = call.operand_of(mask, "attn_mask")
    if operand.dtype != "bool":
        return operand
    seen = call.numbers_of(mask, "boolean attn_mask")
    if seen.all():
        return None
    if not seen.any(axis=-1).all():
        raise NotUnderstoodError("its mask hides every key from a query")
    dtype = np.float32 if call.outputs[0].dtype != "float64" else np.float64
    return call.sink.constant(np.where(seen, 0.0, -np.inf).astype(dtype)).operand


_ATTENTION = (
    "aten.scaled_dot_product_attention.default",
    "aten._scaled_dot_product_attention_math.default",
    "aten._scaled_dot_product_flash_attention.default",
    "aten._scaled_dot_product_flash_attention_for_cpu.default",
    "aten._scaled_dot_product_efficient_attention.default",
    "aten._scaled_dot_product_cudnn_attention.default",
    "aten._scaled_dot_product_fused_attention_overrideable.default",
)


BUILDERS: Mapping[str, Builder] = {
    **dict.fromkeys(_ATTENTION, _attention),
}
