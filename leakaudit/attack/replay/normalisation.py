"""Replay of normalisation: undone with known constants, and what its parameters' gradients show."""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.attack.replay.arithmetic import require_nonzero
from leakaudit.attack.replay.rounding import rounding
from leakaudit.attack.state import PathBroken, State
from leakaudit.equations.known import Known
from leakaudit.facts.fact import gradient, value
from leakaudit.operators import BatchNorm
from leakaudit.operators.normalisation import AffineValue, BatchNormInverse


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
    error = y.error + rounding(state, y.tensor)
    return Known(x, y.mask, error * float(gain.abs().max()))


def affine_value(step: AffineValue, state: State) -> Known:
    """y = scale · x̂ + bias with x̂ = dscale / (dl/dy), where the loss depends on y.

    What is smaller than rounding of the largest dl/dy is no gradient: its quotient is noise.
    """
    node = state.graph.node(step.node)
    (y,) = node.outputs
    shape = state.graph.tensors[y].shape
    g = state.known[gradient(y)].tensor
    name, offset = node.parameter("scale") or "", node.parameter("bias")
    seen = g.abs() > state.precision * g.abs().max()
    if not bool(seen.any()):
        raise PathBroken(step.node, "every gradient of its output is 0: none of it is seen")
    normalised = state.gradients[name].reshape(shape) / torch.where(seen, g, 1.0)
    bias = 0.0 if offset is None else state.weights[offset].reshape(shape)
    out = torch.where(seen, state.weights[name].reshape(shape) * normalised + bias, 0.0)
    if bool(seen.all()):
        return Known(out, None, rounding(state, out))
    count = f"{int(seen.sum())} of {seen.numel()}"
    state.attempts.append(f"{step.node}: {count} outputs are seen, the others have no gradient")
    return Known(out, seen, rounding(state, out))
