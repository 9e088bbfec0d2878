"""What the weights of a layer alone tell of its input: the attack on a layer that is frozen.

A frozen weight sends no gradient, and often nothing else shows the layer's output either. The
equations that are left are the |B| weight constraints o - b = P·w. Here they are solved for the
layer's true output, which is more than any attacker has: what does not come back from it does not
come back from less.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from leakaudit.confirm.client import SharedGradient
from leakaudit.confirm.recovered import RecoveredTensor
from leakaudit.equations.known import Known
from leakaudit.equations.system import layer_system
from leakaudit.findings import Confirmation, Scope
from leakaudit.graph import Graph, Node
from leakaudit.solvers.dense import factorise
from leakaudit.solvers.interface import Solution
from leakaudit.solvers.solve import solve_layer

EPSILON = torch.finfo(torch.float64).eps


def solve_given_output(
    base: Confirmation,
    graph: Graph,
    node: Node,
    weights: Mapping[str, Tensor],
    shared: SharedGradient,
) -> Confirmation:
    """Solve the weight constraints of a convolution or dense layer for its true output.

    Args:
        base: What is common to all confirmations of this run.
        graph: The network.
        node: A layer with weights.
        weights: Parameters by name, float64.
        shared: The truth: the layer's output to start from, its input to measure by.
    """
    started = time.perf_counter()
    (x,), (o,) = node.inputs, node.outputs
    if node.op.is_convolution:
        known = Known(shared.values[o])
        system = layer_system(graph, node, weights, {}, G=None, o=known, precision=EPSILON)
        solution = solve_layer(system)
    else:
        solution = _dense(node, weights, shared.values[o], shared.values[x].shape)
    judged = RecoveredTensor(solution.x, solution).judge(shared.values[x])
    given = "from its frozen weight and its true output, which is more than an attacker has"
    told = judged.given(given).confirmation(base, Scope.LOCAL)
    return replace(told, seconds=time.perf_counter() - started)


def _dense(node: Node, weights: Mapping[str, Tensor], z: Tensor, shape: torch.Size) -> Solution:
    """x = W⁺ (z - b) for every row."""
    w = weights[node.parameter("weight") or ""]
    bias = weights.get(node.parameter("bias") or "")
    rhs = z if bias is None else z - bias
    rows = rhs.reshape(-1, rhs.shape[-1])
    factor = factorise(w, EPSILON)
    x = factor.solve(rows.T).T
    left = float((x @ w.T - rows).norm() / rows.norm().clamp_min(EPSILON))
    return Solution(
        x.reshape(shape),
        "singular value decomposition",
        "the weight alone, row by row",
        x.numel(),
        factor.rank * len(rows),
        factor.condition,
        left,
        singular_values=(float(factor.singular_values[0]), float(factor.singular_values[-1]))
        if factor.rank
        else None,
    )
