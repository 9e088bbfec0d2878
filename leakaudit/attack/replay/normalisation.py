"""Replay of normalisation with known constants, undone."""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.attack.replay.arithmetic import require_nonzero
from leakaudit.attack.state import State
from leakaudit.equations.known import Known
from leakaudit.facts.fact import value
from leakaudit.operators import BatchNorm
from leakaudit.operators.normalisation import BatchNormInverse


def batch_norm_inverse(step: BatchNormInverse, state: State) -> Known:
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
    require_nonzero(step.node, scale)
    gain = torch.sqrt(channel("variance", 1.0) + node.op.epsilon) / scale
    x = (y.tensor - channel("bias", 0.0)) * gain + channel("mean", 0.0)
    error = y.error + state.rounding(y.tensor)
    return Known(x, y.mask, error * float(gain.abs().max()))
