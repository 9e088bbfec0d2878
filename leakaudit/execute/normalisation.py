"""Normalisation; the affine parameters `scale` and `bias` are optional everywhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.execute.interface import Inputs, Outputs, Parameters
from leakaudit.graph import Graph, Node
from leakaudit.operators import (
    BatchNorm,
    GroupNorm,
    LayerNorm,
    LocalResponseNorm,
    LpNormalization,
    RmsNorm,
    Softmax,
)


def batch_norm(
    op: BatchNorm, x: Inputs, parameters: Parameters, graph: Graph, node: Node
) -> Outputs:
    """(x - mean) / sqrt(variance + epsilon) · scale + bias, per channel.

    In training by the mean and the biased variance of the batch, else by the stored ones.
    """
    if op.training:
        axes = [axis for axis in range(x[0].dim()) if axis != 1]
        mean = x[0].mean(axes)
        variance = x[0].var(axes, correction=0)
    else:
        mean, variance = parameters["mean"], parameters["variance"]
    y = (x[0] - _per_channel(mean, x[0])) * _per_channel(torch.rsqrt(variance + op.epsilon), x[0])
    if "scale" in parameters:
        y = y * _per_channel(parameters["scale"], y)
    if "bias" in parameters:
        y = y + _per_channel(parameters["bias"], y)
    return (y,)


def layer_norm(
    op: LayerNorm, x: Inputs, parameters: Parameters, graph: Graph, node: Node
) -> Outputs:
    """Mean 0 and variance 1 over the last `axes` axes, then scale and bias."""
    shape = x[0].shape[x[0].dim() - op.axes :]
    scale, bias = parameters.get("scale"), parameters.get("bias")
    return (F.layer_norm(x[0], shape, scale, bias, op.epsilon),)


def rms_norm(op: RmsNorm, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """x / sqrt(mean(x²) + epsilon) · scale over the last `axes` axes."""
    axes = list(range(x[0].dim() - op.axes, x[0].dim()))
    y = x[0] * torch.rsqrt(x[0].square().mean(axes, keepdim=True) + op.epsilon)
    return (y * parameters["scale"] if "scale" in parameters else y,)


def group_norm(
    op: GroupNorm, x: Inputs, parameters: Parameters, graph: Graph, node: Node
) -> Outputs:
    """Mean 0 and variance 1 per example and group of channels, then scale and bias per channel."""
    scale, bias = parameters.get("scale"), parameters.get("bias")
    # Not F.group_norm: it refuses groups of a single element, which are valid in evaluation.
    return (torch.group_norm(x[0], op.groups, scale, bias, op.epsilon),)


def local_response_norm(
    op: LocalResponseNorm, x: Inputs, parameters: Parameters, graph: Graph, node: Node
) -> Outputs:
    """x / (bias + alpha/size · sum of squares)^beta.

    The sum runs over the channels c - floor((size-1)/2) to c + ceil((size-1)/2) that exist.
    """
    before = (op.size - 1) // 2
    pads = [0, 0] * (x[0].dim() - 2) + [before, op.size - 1 - before]
    squares = F.pad(x[0].square(), pads).unfold(1, op.size, 1).sum(-1)  # (B, N, ..)
    return (x[0] / (op.bias + op.alpha / op.size * squares).pow(op.beta),)


def lp_normalization(
    op: LpNormalization, x: Inputs, parameters: Parameters, graph: Graph, node: Node
) -> Outputs:
    """x over its p-norm along the axis; a zero vector stays zero, as ONNX has it."""
    norm = torch.linalg.vector_norm(x[0], op.p, op.axis, keepdim=True)
    return (x[0] / torch.where(norm == 0, torch.ones_like(norm), norm),)


def softmax(op: Softmax, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """Along one axis, or its logarithm."""
    return (x[0].log_softmax(op.axis) if op.log else x[0].softmax(op.axis),)


def _per_channel(value: Tensor, like: Tensor) -> Tensor:
    """(N,) shaped to broadcast over (B, N, ..)."""
    return value.view(1, -1, *[1] * (like.dim() - 2))
