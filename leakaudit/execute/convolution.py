"""Convolution and transposed convolution."""

from __future__ import annotations

import torch.nn.functional as F

from leakaudit.equations.axes import torch_padding
from leakaudit.equations.convolution import Convolution, add_channel_bias, convolve
from leakaudit.execute.interface import Call, Executors, Outputs
from leakaudit.operators import Conv, ConvTranspose


def convolution(op: Conv, call: Call) -> Outputs:
    """o = w * x + b, (B, F, O_1..O_d)."""
    w = call.parameters["weight"]
    o = Convolution(op, tuple(call.x[0].shape), tuple(w.shape)).output(call.x[0], w)
    return (add_channel_bias(o, call.parameters.get("bias")),)


def transposed_convolution(op: ConvTranspose, call: Call) -> Outputs:
    """The full output, cut (or extended by zeros) on every side, plus the bias.

    Full size per axis: (H - 1)·S + dilation·(K - 1) + 1.
    """
    w, free = call.parameters["weight"], (0,) * len(op.kernel)
    full = convolve(call.x[0], w, op.stride, free, op.dilation, op.groups, transposed=True)
    # A negative pad crops.
    pads = torch_padding([-cut for cut in op.padding_begin], [-cut for cut in op.padding_end])
    o = F.pad(full, pads) if any(pads) else full
    return (add_channel_bias(o, call.parameters.get("bias")),)


EXECUTORS: Executors = {Conv: convolution, ConvTranspose: transposed_convolution}
