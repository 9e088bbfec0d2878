"""The equations of one bias-free layer as dense matrices, the way R-GAP solves them.

Written from the layer's definition alone (which tap reads which pixel), without the convolution
kernels and the structure that R-CONV's solvers use.
"""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.operators.base import Window


def padded_shape(op: Window, shape: tuple[int, ...]) -> tuple[int, ...]:
    """(N, H.., W..) of one example with its padding; `shape` is the input's, batch first."""
    sizes = zip(shape[2:], op.padding_begin, op.padding_end, strict=True)
    return (shape[1], *(size + begin + end for size, begin, end in sizes))


def convolution_rows(
    op: Window,
    shape: tuple[int, ...],
    w: Tensor,
    G: Tensor | None,
    *,
    padding_constraints: bool,
) -> Tensor:
    """Weight constraints, gradient constraints and padding constraints of a 2-d convolution.

    Args:
        op: Without groups.
        shape: Of the input, (1, N, H, W).
        w: Weights (F, N, K, K).
        G: dl/do (1, F, O, O), or None for the weight constraints alone.
        padding_constraints: Take the padded pixels as unknowns, with a row x = 0 for each; else
            they are left out.

    Returns:
        (rows, unknowns). Rows: outputs (F, L), then dl/dw (F, N, K, K), then padding.
    """
    filters, channels, *_ = w.shape
    _, height, width = padded_shape(op, shape)
    pixels = height * width
    numbers = torch.arange(pixels, dtype=torch.float64, device=w.device).reshape(
        1, 1, height, width
    )
    patches = F.unfold(numbers, op.kernel, op.dilation, 0, op.stride)
    reads = patches[0].round().long()  # (K·K, L): the pixel that each tap reads at each position
    taps, positions = reads.shape
    every = torch.arange(positions, device=w.device)

    flat = w.reshape(filters, channels, taps)
    weight = w.new_zeros((filters, positions, channels, pixels))
    for tap in range(taps):
        weight[:, every, :, reads[tap]] = flat[None, :, :, tap]
    rows = [weight.reshape(filters * positions, -1)]
    if G is not None:
        slope = G.reshape(filters, positions)
        one = w.new_zeros((filters, taps, pixels))
        for tap in range(taps):
            one[:, tap, reads[tap]] = slope
        gradient = w.new_zeros((filters, channels, taps, channels, pixels))
        for channel in range(channels):
            gradient[:, channel, :, channel] = one
        rows.append(gradient.reshape(filters * channels * taps, -1))

    inside = _inside(op, shape).to(w.device)  # (N·pixels,)
    if not padding_constraints:
        return torch.cat([part[:, inside] for part in rows])
    identity = torch.eye(inside.numel(), dtype=w.dtype, device=w.device)
    return torch.cat([*rows, identity[~inside]])


def convolution_input(
    op: Window, shape: tuple[int, ...], solved: Tensor, *, padding_constraints: bool
) -> Tensor:
    """The unknowns of `convolution_rows` as the layer's input (1, N, H, W)."""
    if padding_constraints:
        solved = solved[_inside(op, shape).to(solved.device)]
    return solved.reshape(shape)


def linear_rows(W: Tensor, g: Tensor) -> Tensor:
    """The same for a dense layer: W (out, in) and dl/dz (out,) give out + out·in rows."""
    outputs, inputs = W.shape
    identity = torch.eye(inputs, dtype=W.dtype, device=W.device)
    gradient = g[:, None, None] * identity[None]  # (out, in, in)
    return torch.cat([W, gradient.reshape(outputs * inputs, inputs)])


def _inside(op: Window, shape: tuple[int, ...]) -> Tensor:
    """Mask over the padded unknowns: which are real pixels."""
    mask = torch.zeros(padded_shape(op, shape), dtype=torch.bool)
    top, left = op.padding_begin
    mask[:, top : top + shape[2], left : left + shape[3]] = True
    assert int(mask.sum()) == prod(shape)  # noqa: S101 - a batch of one is the caller's promise
    return mask.reshape(-1)
