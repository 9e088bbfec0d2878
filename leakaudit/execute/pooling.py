"""Pooling over the spatial axes, one axis after the other.

A window's maximum is the maximum of its rows' maxima, and its sum the sum of their sums: pooling
axis by axis reads kernel_1 + .. + kernel_d elements per position where windows of all axes at once
would copy their product. How many positions there are is what the graph states: with `ceil`, ONNX
and PyTorch drop a last window that starts past the input and its leading padding, older tools keep
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.execute.interface import Call, Executors, NotExecutable, Outputs
from leakaudit.operators import AdaptiveAveragePool, AveragePool, LpPool, MaxPool

Pool = MaxPool | AveragePool | LpPool


def max_pool(op: MaxPool, call: Call) -> Outputs:
    """The largest value of each window; of equal ones the first receives the gradient."""
    fill = -torch.inf if call.x[0].is_floating_point() else float(torch.iinfo(call.x[0].dtype).min)
    y, sizes = call.x[0], call.shape[2:]
    for axis in reversed(range(len(sizes))):  # the last first: ties then go in row-major order
        y = _windows(op, y, axis, sizes[axis], fill).max(-1).values
    return (y,)


def average_pool(op: AveragePool, call: Call) -> Outputs:
    """The sum of each window over the number of its elements that count."""
    y, sizes = call.x[0], call.shape[2:]
    for axis, size in enumerate(call.x[0].shape[2:]):
        begin, end = op.padding_begin[axis], op.padding_end[axis]
        counted = range(-begin, size + end) if op.include_padding else range(size)
        position = _positions(op, axis, sizes[axis], y.device)
        inside = (position >= counted.start) & (position < counted.stop)
        # A window of padding alone has the sum 0; a divisor of 1 keeps it from being 0/0.
        divisor = inside.sum(-1).clamp_min(1).to(y.dtype)  # (O,)
        y = _windows(op, y, axis, sizes[axis], 0.0).sum(-1)
        y = y / divisor.view(-1, *[1] * (len(sizes) - 1 - axis))
    return (y,)


def lp_pool(op: LpPool, call: Call) -> Outputs:
    """(sum of |x|^p)^(1/p) of each window; where all is zero the gradient is zero too."""
    y, sizes = call.x[0].abs().pow(op.p), call.shape[2:]
    for axis in range(len(sizes)):
        y = _windows(op, y, axis, sizes[axis], 0.0).sum(-1)
    zero = y == 0
    return (torch.where(zero, y, torch.where(zero, torch.ones_like(y), y).pow(1 / op.p)),)


def adaptive_average_pool(op: AdaptiveAveragePool, call: Call) -> Outputs:
    """Position i of O averages the elements floor(i·H/O) to ceil((i+1)·H/O) - 1.

    Raises:
        NotExecutable: There are other than 1 to 3 spatial axes.
    """
    sizes = call.shape[2:]
    if len(sizes) not in _ADAPTIVE:
        raise NotExecutable(f"{call.name} (adaptive pooling over {len(sizes)} axes)")
    return (_ADAPTIVE[len(sizes)](call.x[0], sizes),)


# By the number of spatial axes.
_ADAPTIVE: Mapping[int, Callable[[Tensor, Any], Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


def _windows(op: Pool, x: Tensor, axis: int, positions: int, fill: float) -> Tensor:
    """The windows along one spatial axis, (B, N, .., O, .., K): a view of the padded input."""
    kernel, stride, dilation = op.kernel[axis], op.stride[axis], op.dilation[axis]
    begin, reach = op.padding_begin[axis], dilation * (kernel - 1) + 1
    end = (positions - 1) * stride + reach - x.shape[axis + 2] - begin
    pads = [0, 0] * (x.dim() - 3 - axis) + [begin, end]  # a negative end cuts what no window reads
    padded = F.pad(x, pads, value=fill) if begin or end else x
    return padded.unfold(axis + 2, reach, stride)[..., ::dilation]


def _positions(op: Pool, axis: int, positions: int, device: torch.device) -> Tensor:
    """Which input index each tap of each window reads, (O, K); outside the input in the padding."""
    first = torch.arange(positions, device=device) * op.stride[axis] - op.padding_begin[axis]
    tap = torch.arange(op.kernel[axis], device=device) * op.dilation[axis]
    return first[:, None] + tap[None, :]


EXECUTORS: Executors = {
    MaxPool: max_pool,
    AveragePool: average_pool,
    AdaptiveAveragePool: adaptive_average_pool,
    LpPool: lp_pool,
}
