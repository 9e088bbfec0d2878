"""Attention: products of three unknown activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from leakaudit.facts.gradient_rank import ALL, unlimited
from leakaudit.graph import Graph, Node
from leakaudit.operators.base import Bound, Opaque, Ranks, Roles, Shapes, broadcast, require

__all__ = ["Attention"]


@dataclass(frozen=True, slots=True)
class Attention(Opaque):
    """softmax(q kᵀ · scale + mask) v over the last two axes.

    Inputs q (.., T, E), k (.., S, E), v (.., S, V) and optionally an additive mask; the leading
    axes of k and v are repeated to q's where `grouped` is set (grouped queries).
    """

    reason: ClassVar[str] = "attention mixes products of unknown activations"

    scale: float
    causal: bool = False
    grouped: bool = False

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        require(len(inputs) in (3, 4))
        q, k, v = inputs[:3]
        require(q[-1] == k[-1] and k[-2] == v[-2])
        if self.grouped:
            require(len(q) > 2 and k[:-2] == v[:-2] and q[:-3] == k[:-3] and q[-3] % k[-3] == 0)
            batch = q[:-2]
        else:
            batch = broadcast(q[:-2], k[:-2], v[:-2])
        scores = (*batch, q[-2], k[-2])
        require(broadcast(*inputs[3:], scores) == scores)
        return [(*batch, q[-2], v[-1])]

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        y, shape = outputs[0], graph.shape(node.inputs[index])
        if index != 0 or len(shape) != len(y.shape):
            return None
        # A row of the queries has influence on the same row of the output alone.
        return unlimited(shape, (*(ALL for _ in shape[:-2]), y.supports[-2], ALL))
