"""Scaled dot-product attention, and the softmax that decomposed attention guards."""

from __future__ import annotations

import math

import numpy as np

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Call, Layer, by_target, same, targets
from leakaudit.frontends.aten.values import Value
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.graph import Tensor

_SOFTMAXES = targets("_softmax softmax.int")
_TESTS = targets("logical_not any.dim logical_not")


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
    mask = call.arguments.get("attn_mask", call.arguments.get("attn_bias"))
    additive = None if mask is None else _additive_mask(call, mask)
    if additive is not None:
        inputs.append(additive.name)
    causal, grouped = call.flag("is_causal", False), call.flag("enable_gqa", False)
    return Layer(ops.Attention(scale, causal=causal, grouped=grouped), tuple(inputs))


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


def safe_softmax(call: Call) -> Layer | None:
    """The softmax that this `where` guards, or None where it is anything else.

    Decomposed attention gives 0 where every key is hidden, which torch writes as
    where(not any(not (x == -inf)), 0, softmax(x)). As long as every query sees a key this is the
    softmax itself.
    """
    guarded, fallback = call.arguments.get("other"), call.arguments.get("self")
    softmax = _call(call, guarded)
    if not isinstance(guarded, Tensor) or softmax is None or softmax.target not in _SOFTMAXES:
        return None
    numbers = call.sink.numbers(fallback)
    if numbers is None or numbers.any():
        return None
    scores = softmax.arguments.get("self")
    test = _call(call, call.arguments.get("condition"))
    for target in _TESTS:
        if test is None or test.target != target:
            return None
        test = _call(call, test.arguments.get("self"))
    if test is None or test.target != "aten.eq.Scalar" or test.arguments.get("self") != scores:
        return None
    if test.arguments.get("other") != -math.inf or _hides_a_row(call, _call(call, scores)):
        return None
    return same(guarded)


def _call(call: Call, value: object) -> Call | None:
    return call.sink.calls.get(value.name) if isinstance(value, Tensor) else None


def _hides_a_row(call: Call, scores: Call | None) -> bool:
    """Whether the scores are a sum with a constant mask that hides every key from a query."""
    if scores is None or scores.target != "aten.add.Tensor":
        return False
    for value in scores.arguments.values():
        mask = call.sink.numbers(value)
        if mask is not None and mask.ndim and np.isneginf(mask).all(axis=-1).any():
            return True
    return False


BUILDERS = by_target(
    {
        "scaled_dot_product_attention _scaled_dot_product_attention_math": _attention,
        "_scaled_dot_product_flash_attention": _attention,
        "_scaled_dot_product_flash_attention_for_cpu": _attention,
        "_scaled_dot_product_efficient_attention": _attention,
        "_scaled_dot_product_cudnn_attention": _attention,
        "_scaled_dot_product_fused_attention_overrideable": _attention,
    }
)
