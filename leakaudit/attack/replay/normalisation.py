"""Replay of normalisation: undone with known constants, and what its parameters' gradients show."""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.attack.replay.arithmetic import require_nonzero
from leakaudit.attack.replay.convolution import CONTRADICTION, EPSILON, ROUNDING
from leakaudit.attack.state import PathBroken, State
from leakaudit.equations.axes import per_channel
from leakaudit.equations.convolution import convolution_of
from leakaudit.equations.known import Known
from leakaudit.equations.normalised import NormalisedLayer, unit_scaled
from leakaudit.facts.fact import Quality, gradient, value
from leakaudit.graph import Node
from leakaudit.operators import BatchNorm
from leakaudit.operators.normalisation import (
    AffineValue,
    BatchNormInverse,
    LastAxes,
    Normalisation,
    NormalisedConvolutionValue,
)
from leakaudit.solvers.dense import least_squares, rank_tolerance
from leakaudit.solvers.interface import Solution


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
        return Known(out, None, state.rounding(out))
    count = f"{int(seen.sum())} of {seen.numel()}"
    state.attempts.append(f"{step.node}: {count} outputs are seen, the others have no gradient")
    return Known(out, seen, state.rounding(out))


def convolution_value(step: NormalisedConvolutionValue, state: State) -> Known:
    """The input of the convolution below, by dense least squares for it and the statistics.

    Homogeneous equations are solved for input and statistics in units of one deviation, which is
    positive: the factor that stays open is too.
    """
    y = step.premises[-1].tensor
    node, below = state.graph.producers[y], state.graph.node(step.node)
    layer, gain = _normalised_layer(node, below, state)
    blocks = [unit_scaled(*layer.weight_rows())]
    if len(step.premises) > 1 and bool(layer.mask.all()):
        G = layer.scaled_output_gradient(gain * state.known[gradient(y)].tensor)
        dw = state.gradients[below.parameter("weight") or ""]
        blocks.append(unit_scaled(*layer.gradient_rows(G, dw)))
    matrix, right = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    unknowns = step.counts["unknowns"]
    used = matrix.abs().amax(0) > 0
    used[:unknowns] = True  # a pixel without an equation is a short rank, no unknown less
    if step.quality is Quality.SCALED:
        # The deviation of the part of which most is seen.
        seen = layer.mask.reshape(layer.groups, -1).sum(1)
        unit = unknowns + int(seen.argmax())
        right = right - matrix[:, unit]
        used[unit] = False
    x, (high, low), residual = least_squares(matrix[:, used], right)
    rows, columns = matrix.shape
    tolerance = rank_tolerance(rows, columns, state.precision)
    if low <= tolerance * high:
        hidden = int((~layer.mask).sum())
        why = f": {hidden} of its {layer.mask.numel()} outputs are not known" if hidden else ""
        raise PathBroken(step.node, f"the rank of its equations is short of {used.sum()}{why}")
    solution = Solution(
        x=x[:unknowns].reshape(layer.convolution.input_shape),
        solver="dense least squares",
        reason=f"{step.counts['statistics']} statistics of the normalisation are unknowns too",
        unknowns=unknowns,
        rank=unknowns,
        condition=high / low,
        residual=residual,
        singular_values=(high, low),
    )
    state.solutions[step.node] = solution
    if residual > CONTRADICTION:
        raise PathBroken(
            step.node,
            f"the equations contradict each other (relative residual {residual:.2f})",
            solution,
        )
    relative = max(ROUNDING * EPSILON, state.precision, residual) * high / low
    return Known(solution.x, None, relative * float(solution.x.abs().max()))


def _normalised_layer(node: Node, below: Node, state: State) -> tuple[NormalisedLayer, Tensor]:
    """The layer with the normalised output as far as it is known, and the scale."""
    if not isinstance(node.op, Normalisation):
        raise TypeError(f"{node.name} is no normalisation")
    y = state.known[value(node.outputs[0])]
    shape = y.tensor.shape

    def parameter(role: str, default: float) -> Tensor:
        name = node.parameter(role)
        if name is None:
            return torch.full_like(y.tensor, default)
        stored = state.weights[name]
        if isinstance(node.op, LastAxes):
            return stored.expand(shape)
        return per_channel(stored, y.tensor).expand(shape)

    gain = parameter("scale", 1.0)
    mask = gain != 0 if y.mask is None else (gain != 0) & y.mask
    normalised = (y.tensor - parameter("bias", 0.0)) / torch.where(mask, gain, 1.0)
    groups = node.op.groups_of(tuple(shape))
    return NormalisedLayer(
        convolution_of(state.graph, below),
        state.weights[below.parameter("weight") or ""],
        state.weights.get(below.parameter("bias") or ""),
        torch.where(mask, normalised, 0.0),
        mask,
        groups or 1,
        node.op.centred,
    ), gain
