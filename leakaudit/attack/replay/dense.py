"""Replay of the derivations of dense layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from leakaudit.attack.loss import HeadSolution, row_space, solve_head
from leakaudit.attack.state import PathBroken, State
from leakaudit.equations.known import Known
from leakaudit.facts.fact import Derivation, gradient, value
from leakaudit.graph import Node
from leakaudit.operators import Linear, dense


def _dense(step: Derivation, state: State) -> tuple[Node, Linear]:
    node = state.graph.node(step.node)
    if not isinstance(node.op, Linear):
        raise TypeError(f"{step.node} is not a dense layer")
    return node, node.op


def _weight(node: Node, op: Linear, stored: Mapping[str, Tensor]) -> Tensor:
    """W, or dl/dW among the gradients, as (out, in)."""
    W = stored[node.parameter("weight") or ""]
    return W.T if op.transposed else W


def head_solutions(step: dense.ValueFromLoss, state: State) -> list[HeadSolution]:
    """All ways to complete a bias-free head."""
    node, op = _dense(step, state)
    W, dW = _weight(node, op, state.weights), _weight(node, op, state.gradients)
    bias = node.parameter("bias")
    offset = state.weights[bias] * op.beta if bias else None
    return list(solve_head(state.loss, dW / op.alpha, op.alpha * W, offset))


def gradient_from_bias(step: dense.GradientFromBias, state: State) -> Known:
    node, op = _dense(step, state)
    return state.shaped(node.outputs[0], state.gradients[node.parameter("bias") or ""] / op.beta)


def value_from_bias(step: dense.ValueFromBias, state: State) -> Known:
    node, op = _dense(step, state)
    g = state.gradients[node.parameter("bias") or ""] / op.beta
    energy = torch.dot(g, g)
    if float(energy) == 0:
        raise PathBroken(step.node, "every bias gradient is 0: the loss does not change here")
    x = (g @ _weight(node, op, state.gradients)) / (op.alpha * energy)
    return state.shaped(node.inputs[0], x)


def _head(step: Derivation, state: State) -> HeadSolution:
    if state.head is None:
        raise PathBroken(step.node, "no scale fulfils the loss equation: its gradient is 0")
    return state.head


def value_from_loss(step: dense.ValueFromLoss, state: State) -> Known:
    return state.shaped(step.conclusion.tensor, _head(step, state).x)


def gradient_from_loss(step: dense.GradientFromLoss, state: State) -> Known:
    return state.shaped(step.conclusion.tensor, _head(step, state).g)


def value_up_to_scale(step: dense.ValueUpToScale, state: State) -> Known:
    node, op = _dense(step, state)
    v, size = row_space(_weight(node, op, state.gradients))
    if size == 0:
        raise PathBroken(step.node, "every weight gradient is 0: the loss does not change here")
    return state.shaped(node.inputs[0], v)


def value_from_gradient(step: dense.ValueFromGradient, state: State) -> Known:
    node, op = _dense(step, state)
    G = state.known[gradient(node.outputs[0])].tensor.reshape(-1, op.out_features)  # (T, out)
    dW = _weight(node, op, state.gradients) / op.alpha  # (out, in) = Gᵀ x
    U, singular, Vh = torch.linalg.svd(G.T, full_matrices=False)
    largest = float(singular[0])
    rank = int((singular > largest * state.precision * max(G.shape)).sum())
    if rank < G.shape[0] or largest == 0:
        raise PathBroken(
            step.node, f"its output gradient has rank {rank}, {G.shape[0]} rows are to be separated"
        )
    x = Vh.T @ ((U.T @ dW) / singular[:, None])
    return state.shaped(node.inputs[0], x, state.rounding(dW) / float(singular[-1]))


def value_from_output(step: dense.ValueFromOutput, state: State) -> Known:
    """x = W⁺ (z - b) / alpha."""
    node, op = _dense(step, state)
    W = _weight(node, op, state.weights)
    known = state.known[value(node.outputs[0])]
    bias = state.weights.get(node.parameter("bias") or "")
    z = known.tensor if bias is None else known.tensor - op.beta * bias
    U, singular, Vh = torch.linalg.svd(W, full_matrices=False)
    rank = int((singular > singular[0] * torch.finfo(W.dtype).eps * max(W.shape)).sum())
    if rank < op.in_features:
        raise PathBroken(step.node, f"its weight has rank {rank}, {op.in_features} are needed")
    x = ((z @ U) / (op.alpha * singular)) @ Vh
    error = known.error + state.rounding(known.tensor)
    return Known(x, error=error / float(singular[-1]))


def input_gradient(step: dense.InputGradient, state: State) -> Known:
    node, op = _dense(step, state)
    g = state.known[gradient(node.outputs[0])].tensor
    return Known(op.alpha * (g @ _weight(node, op, state.weights)))
