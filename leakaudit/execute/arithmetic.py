"""Arithmetic between tensors, parameters and constants, with broadcasting."""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.execute.interface import Inputs, Outputs, Parameters
from leakaudit.graph import Graph, Node
from leakaudit.operators import Add, Attention, Div, Einsum, MatMul, Mul, Pow, Scale, Sub


def add(op: Add, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """x + y."""
    return (x[0] + x[1],)


def subtract(op: Sub, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """x - y."""
    return (x[0] - x[1],)


def multiply(op: Mul, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """x · y."""
    return (x[0] * x[1],)


def divide(op: Div, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """x / y."""
    return (x[0] / x[1],)


def power(op: Pow, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """x to the power of y."""
    return (torch.pow(x[0], x[1]),)


def scale(op: Scale, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """factor · x + offset; integers stay integers where both numbers are whole."""
    factor, offset = op.factor, op.offset
    whole = float(factor).is_integer() and float(offset).is_integer()
    if whole and not x[0].is_floating_point():
        return (x[0] * int(factor) + int(offset),)
    return (x[0] * factor + offset,)


def matmul(op: MatMul, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """numpy.matmul."""
    return (torch.matmul(x[0], x[1]),)


def einsum(op: Einsum, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """numpy.einsum."""
    return (torch.einsum(op.equation, *x),)


def attention(
    op: Attention, x: Inputs, parameters: Parameters, graph: Graph, node: Node
) -> Outputs:
    """softmax(q kᵀ · scale + mask) v, written out so that it is twice differentiable.

    q (.., T, E), k (.., S, E), v (.., S, V) -> (.., T, V). `causal` hides key j from query i where
    j > i. A boolean mask is True where a key takes part, in ONNX as in PyTorch. A query that sees
    no key attends to nothing: its row is 0, where softmax alone would give 0/0.
    """
    q, k, v = x[0], x[1], x[2]
    if op.grouped:
        k, v = _repeat_heads(k, q), _repeat_heads(v, q)
    scores = (q @ k.mT) * op.scale  # (.., T, S)
    hidden = -torch.inf
    if op.causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, hidden)
    if len(x) > 3:
        mask = x[3]
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
