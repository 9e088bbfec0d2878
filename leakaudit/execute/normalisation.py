"""Normalisation; the affine parameters `scale` and `bias` are optional everywhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from leakaudit import operators as ops
from leakaudit.equations.axes import per_channel
from leakaudit.execute.interface import Call, Executors, Outputs


def batch_norm(op: ops.BatchNorm, call: Call) -> Outputs:
    """(x - mean) / sqrt(variance + epsilon) · scale + bias, per channel.

    In training by the mean and the biased variance of the batch, else by the stored ones.
    """
    x = call.x[0]
    if op.training:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        mean, variance = x.mean(axes), x.var(axes, correction=0)
    else:
        mean, variance = call.parameters["mean"], call.parameters["variance"]
    y = (x - per_channel(mean, x)) * per_channel(torch.rsqrt(variance + op.epsilon), x)
    if "scale" in call.parameters:
        y = y * per_channel(call.parameters["scale"], y)
    if "bias" in call.parameters:
        y = y + per_channel(call.parameters["bias"], y)
    return (y,)


def layer_norm(op: ops.LayerNorm, call: Call) -> Outputs:
    """Mean 0 and variance 1 over the last `axes` axes, then scale and bias."""
    shape = call.x[0].shape[call.x[0].dim() - op.axes :]
    scale, bias = call.parameters.get("scale"), call.parameters.get("bias")
    return (F.layer_norm(call.x[0], shape, scale, bias, op.epsilon),)


def rms_norm(op: ops.RmsNorm, call: Call) -> Outputs:
    """x / sqrt(mean(x²) + epsilon) · scale over the last `axes` axes."""
    axes = list(range(call.x[0].dim() - op.axes, call.x[0].dim()))
    y = call.x[0] * torch.rsqrt(call.x[0].square().mean(axes, keepdim=True) + op.epsilon)
    return (y * call.parameters["scale"] if "scale" in call.parameters else y,)


def group_norm(op: ops.GroupNorm, call: Call) -> Outputs:
    """Mean 0 and variance 1 per example and group of channels, then scale and bias per channel."""
    scale, bias = call.parameters.get("scale"), call.parameters.get("bias")
    # Not F.group_norm: it refuses groups of a single element, which are valid in evaluation.
    return (torch.group_norm(call.x[0], op.groups, scale, bias, op.epsilon),)


def local_response_norm(op: ops.LocalResponseNorm, call: Call) -> Outputs:
    """x / (bias + alpha/size · sum of squares)^beta.

    The sum runs over the channels c - floor((size-1)/2) to c + ceil((size-1)/2) that exist.
    """
    before = (op.size - 1) // 2
    pads = [0, 0] * (call.x[0].dim() - 2) + [before, op.size - 1 - before]
    squares = F.pad(call.x[0].square(), pads).unfold(1, op.size, 1).sum(-1)  # (B, N, ..)
    return (call.x[0] / (op.bias + op.alpha / op.size * squares).pow(op.beta),)


def lp_normalization(op: ops.LpNormalization, call: Call) -> Outputs:
    """x over its p-norm along the axis; a zero vector stays zero, as ONNX has it."""
    norm = torch.linalg.vector_norm(call.x[0], op.p, op.axis, keepdim=True)
    return (call.x[0] / torch.where(norm == 0, torch.ones_like(norm), norm),)


def softmax(op: ops.Softmax, call: Call) -> Outputs:
    """Along one axis, or its logarithm."""
    return (call.x[0].log_softmax(op.axis) if op.log else call.x[0].softmax(op.axis),)


EXECUTORS: Executors = {
    ops.BatchNorm: batch_norm,
    ops.LayerNorm: layer_norm,
    ops.RmsNorm: rms_norm,
    ops.GroupNorm: group_norm,
    ops.LocalResponseNorm: local_response_norm,
    ops.LpNormalization: lp_normalization,
    ops.Softmax: softmax,
}
