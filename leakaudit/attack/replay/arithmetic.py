"""Replay of arithmetic and of normalisation with known constants, undone."""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.attack.replay.rounding import rounding
from leakaudit.attack.state import PathBroken, State
from leakaudit.equations.known import Known
from leakaudit.leakpath.derivations import arithmetic, normalisation
from leakaudit.leakpath.facts import value
from leakaudit.operators import Add, BatchNorm, Div, Mul, Scale, Sub


def branch_value(step: arithmetic.BranchValue, state: State) -> Known:
    """One operand from the result and the other."""
    node = state.graph.node(step.node)
    y = state.known[value(node.outputs[0])]
    index = node.inputs.index(step.conclusion.tensor)
    if isinstance(node.op, Scale):
        error = y.error + (rounding(state, y.tensor) if node.op.offset else 0.0)
        x = (y.tensor - node.op.offset) / node.op.factor
        return Known(x, y.mask, error / abs(node.op.factor))
    other_name = node.inputs[1 - index]
    known = state.known.get(value(other_name))
    other = known.tensor if known else state.weights[other_name]
    error = y.error + (known.error if known else 0.0)
    match node.op:
        case Add():
            return Known(y.tensor - other, y.mask, error + rounding(state, y.tensor))
        case Sub():
            x = y.tensor + other if index == 0 else other - y.tensor
            return Known(x, y.mask, error + rounding(state, y.tensor))
        case Div():
            return Known(y.tensor * other, y.mask, error * float(other.abs().max()))
        case Mul(zeros=zeros) if zeros:
            hidden = (other == 0).expand_as(y.tensor)
            mask = ~hidden if y.mask is None else y.mask & ~hidden
            x = torch.where(mask, y.tensor / other, torch.zeros_like(y.tensor))
            return Known(x, mask, error / float(other[other != 0].abs().min()))
        case Mul():
            _require_nonzero(step.node, other)
            return Known(y.tensor / other, y.mask, error / float(other.abs().min()))
        case _:
            raise TypeError(f"{node.name} is not arithmetic")


def batch_norm_inverse(step: normalisation.BatchNormInverse, state: State) -> Known:
    """x = (y - bias) · sqrt(variance + epsilon) / scale + mean, per channel."""
    node = state.graph.node(step.node)
    if not isinstance(node.op, BatchNorm):
        raise TypeError(f"{node.name} is not a batch normalisation")
    y = state.known[value(node.outputs[0])]

    def channel(role: str, default: float) -> Tensor:
        name = node.parameter(role)
        shape = [1, -1] + [1] * (y.tensor.dim() - 2)
        stored = y.tensor.new_full((1,), default) if name is None else state.weights[name]
        return stored.reshape(shape)

    scale = channel("scale", 1.0)
    _require_nonzero(step.node, scale)
    gain = torch.sqrt(channel("variance", 1.0) + node.op.epsilon) / scale
    x = (y.tensor - channel("bias", 0.0)) * gain + channel("mean", 0.0)
    error = y.error + rounding(state, y.tensor)
    return Known(x, y.mask, error * float(gain.abs().max()))


def normalisation_bias_gradient(step: normalisation.BiasGradient, state: State) -> Known:
    """dl/dy = db where every bias is read once."""
    node = state.graph.node(step.node)
    db = state.gradients[node.parameter("bias") or ""]
    return Known(db.reshape(state.graph.tensors[node.outputs[0]].shape))


def _require_nonzero(node: str, factor: Tensor) -> None:
    if bool((factor == 0).any()):
        raise PathBroken(node, "a factor is 0: what it multiplies is lost")
