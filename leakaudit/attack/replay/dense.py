"""Replay of the derivations of dense layers."""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.attack.loss import row_space
from leakaudit.attack.replay.rounding import rounding
from leakaudit.attack.state import PathBroken, State
from leakaudit.equations.known import Known
from leakaudit.facts.fact import Derivation, gradient, value
from leakaudit.graph import Node
from leakaudit.operators import Linear, dense


def _dense(step: Derivation, state: State) -> tuple[Node, Linear, Tensor]:
    """The node, its operator, and W as (out, in)."""
    node = state.graph.node(step.node)
    op = node.op
    if not isinstance(op, Linear):
        raise TypeError(f"{step.node} is not a dense layer")
    W = state.weights[node.parameter("weight") or ""]
    return node, op, W.T if op.transposed else W


def _dense_gradient(node: Node, op: Linear, state: State) -> Tensor:
    dW = state.gradients[node.parameter("weight") or ""]
    return dW.T if op.transposed else dW


def gradient_from_bias(step: dense.GradientFromBias, state: State) -> Known:
    node, op, _ = _dense(step, state)
    g = state.gradients[node.parameter("bias") or ""] / op.beta
    return Known(g.reshape(state.graph.tensors[node.outputs[0]].shape))


def value_from_bias(step: dense.ValueFromBias, state: State) -> Known:
    node, op, _ = _dense(step, state)
    g = state.gradients[node.parameter("bias") or ""] / op.beta
    energy = torch.dot(g, g)
    if float(energy) == 0:
        raise PathBroken(step.node, "every bias gradient is 0: the loss does not change here")
    x = (g @ _dense_gradient(node, op, state)) / (op.alpha * energy)
    return Known(x.reshape(state.graph.tensors[node.inputs[0]].shape))


def value_from_loss(step: dense.ValueFromLoss, state: State) -> Known:
    node, _, _ = _dense(step, state)
    if state.head is None:
        raise PathBroken(step.node, "no scale fulfils the loss equation: its gradient is 0")
    return Known(state.head.x.reshape(state.graph.tensors[node.inputs[0]].shape))


def gradient_from_loss(step: dense.GradientFromLoss, state: State) -> Known:
    node, _, _ = _dense(step, state)
    if state.head is None:
        raise PathBroken(step.node, "no scale fulfils the loss equation: its gradient is 0")
    return Known(state.head.g.reshape(state.graph.tensors[node.outputs[0]].shape))


def value_up_to_scale(step: dense.ValueUpToScale, state: State) -> Known:
    node, op, _ = _dense(step, state)
    v, size = row_space(_dense_gradient(node, op, state))
    if size == 0:
        raise PathBroken(step.node, "every weight gradient is 0: the loss does not change here")
    return Known(v.reshape(state.graph.tensors[node.inputs[0]].shape))


def value_from_gradient(step: dense.ValueFromGradient, state: State) -> Known:
    node, op, _ = _dense(step, state)
    G = state.known[gradient(node.outputs[0])].tensor.reshape(-1, op.out_features)  # (T, out)
    dW = _dense_gradient(node, op, state) / op.alpha  # (out, in) = Gᵀ x
    U, singular, Vh = torch.linalg.svd(G.T, full_matrices=False)
    largest = float(singular[0])
    rank = int((singular > largest * state.precision * max(G.shape)).sum())
    if rank < G.shape[0] or largest == 0:
        raise PathBroken(
            step.node, f"its output gradient has rank {rank}, {G.shape[0]} rows are to be separated"
        )
    x = Vh.T @ ((U.T @ dW) / singular[:, None])
    error = rounding(state, dW) / float(singular[-1])
    return Known(x.reshape(state.graph.tensors[node.inputs[0]].shape), error=error)


def value_from_output(step: dense.ValueFromOutput, state: State) -> Known:
    """x = W⁺ (z - b) / alpha."""
    node, op, W = _dense(step, state)
    known = state.known[value(node.outputs[0])]
    bias = state.weights.get(node.parameter("bias") or "")
    z = known.tensor if bias is None else known.tensor - op.beta * bias
    U, singular, Vh = torch.linalg.svd(W, full_matrices=False)
    rank = int((singular > singular[0] * torch.finfo(W.dtype).eps * max(W.shape)).sum())
    if rank < op.in_features:
        raise PathBroken(step.node, f"its weight has rank {rank}, {op.in_features} are needed")
    x = ((z @ U) / (op.alpha * singular)) @ Vh
    error = known.error + rounding(state, known.tensor)
    return Known(x, error=error / float(singular[-1]))


def input_gradient(step: dense.InputGradient, state: State) -> Known:
    node, op, W = _dense(step, state)
    return Known(op.alpha * (state.known[gradient(node.outputs[0])].tensor @ W))
