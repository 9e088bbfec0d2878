"""Attention: softmax(q kᵀ · scale + mask) v."""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.execute.interface import Call, Executors, Outputs
from leakaudit.operators import Attention


def attention(op: Attention, call: Call) -> Outputs:
    """softmax(q kᵀ · scale + mask) v, written out so that it is twice differentiable.

    q (.., T, E), k (.., S, E), v (.., S, V) -> (.., T, V). `causal` hides key j from query i where
    j > i. A boolean mask is True where a key takes part, in ONNX as in PyTorch. A query that sees
    no key attends to nothing: its row is 0, where softmax alone would give 0/0.
    """
    q, k, v = call.x[0], call.x[1], call.x[2]
    if op.grouped:
        k, v = _repeat_heads(k, q), _repeat_heads(v, q)
    scores = (q @ k.mT) * op.scale  # (.., T, S)
    hidden = -torch.inf
    if op.causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, hidden)
    if len(call.x) > 3:
        mask = call.x[3]
        is_boolean = mask.dtype is torch.bool
        scores = scores.masked_fill(~mask, hidden) if is_boolean else scores + mask
    blind = (scores == hidden).all(-1, keepdim=True)  # (.., T, 1)
    weights = scores.masked_fill(blind, 0).softmax(-1).masked_fill(blind, 0)
    return (weights @ v,)


def _repeat_heads(x: Tensor, q: Tensor) -> Tensor:
    """Repeat each leading index of a key or value in place until there are as many as of q's."""
    for axis in range(q.dim() - 2):
        if x.shape[axis] != q.shape[axis]:
            x = x.repeat_interleave(q.shape[axis] // x.shape[axis], axis)
    return x


EXECUTORS: Executors = {Attention: attention}
