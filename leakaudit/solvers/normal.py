"""The normal matrix SᵀS of the stacked equations of a layer, assembled block by block."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.equations.axes import per_filter, torch_padding, unknown_numbers
from leakaudit.equations.phases import phase_systems
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.normal_operator import NormalOperator

_CHUNK = 8_000_000  # numbers in one batch of patch Gram matrices: 64 MB


def normal_matrix(
    system: LayerSystem, operator: NormalOperator, dtype: torch.dtype = torch.float64
) -> Tensor:
    """SᵀS of shape (|X|, |X|), unknowns in the order of x (B, N, H..) flattened.

    Args:
        system: The layer.
        operator: Its equations, scaled.
        dtype: Of the result, and in which it is computed.
    """
    shape = system.convolution.input_shape
    unknowns = prod(shape)
    H = system.w.new_zeros((unknowns, unknowns), dtype=dtype)
    if operator.gradient is not None:
        scale = operator.gradient.scale
        _add_gradient_constraints(
            H, system.geometry, operator.gradient.G.to(dtype), scale.to(dtype), shape
        )
    if operator.weight is not None:
        W, mask = operator.weight.W.to(dtype), operator.weight.mask.to(dtype)
        _add_weight_constraints(H, system.geometry, W, mask, shape)
    return H


def _add_gradient_constraints(
    H: Tensor, layer: ConvolutionGeometry, G: Tensor, scale: Tensor, shape: tuple[int, ...]
) -> None:
    f, n = layer.filters // layer.groups, layer.channels // layer.groups
    scaled = G.transpose(0, 1) * per_filter(scale, G)
    numbers = unknown_numbers(shape).to(H.device)  # (N, B·H..)
    for phase in phase_systems(layer.axes):
        pixels = phase.pixels.to(H.device)
        for group in range(layer.groups):
            T = phase.matrix(scaled[group * f : (group + 1) * f])
            gram = T.T @ T
            for channel in range(group * n, (group + 1) * n):
                at = numbers[channel, pixels]
                H[at[:, None], at[None, :]] += gram


def _add_weight_constraints(
    H: Tensor, layer: ConvolutionGeometry, W: Tensor, mask: Tensor, shape: tuple[int, ...]
) -> None:
    f, n = layer.filters // layer.groups, layer.channels // layer.groups
    unknowns = H.shape[0]
    numbers = unknown_numbers(shape).to(H.device)  # (N, B·H..)
    pixels, real = _patches(layer)  # (L, k)
    pixels, real = pixels.to(H.device), real.to(H.device)
    L, k = pixels.shape
    step = max(1, _CHUNK // (n * k) ** 2)
    known = mask.transpose(0, 1).reshape(layer.filters, L)  # (F, L)
    flat = H.view(-1)
    for group in range(layer.groups):
        rows = W[group]  # (f, n·k)
        members = numbers[group * n : (group + 1) * n]  # (n, B·H..)
        for start in range(0, L, step):
            at = slice(start, min(L, start + step))
            weighted = known[group * f : (group + 1) * f, at].T[:, :, None] * rows  # (l, f, n·k)
            gram = weighted.transpose(1, 2) @ rows  # (l, n·k, n·k)
            index = members[:, pixels[at]].transpose(0, 1).reshape(-1, n * k)  # (l, n·k)
            valid = real[at][:, None, :].expand(-1, n, -1).reshape(-1, n * k)
            gram = gram * (valid[:, :, None] & valid[:, None, :])
            target = index[:, :, None] * unknowns + index[:, None, :]
            flat.index_add_(0, target.reshape(-1), gram.reshape(-1))


def _patches(layer: ConvolutionGeometry) -> tuple[Tensor, Tensor]:
    """Per output position and tap: the flat pixel in (B, H..), and whether it is a real one."""
    axes = layer.axes
    numbers = torch.arange(prod(axis.size for axis in axes)).view([axis.size for axis in axes])
    begin = [axis.padding_begin for axis in axes]
    windows = F.pad(numbers, torch_padding(begin, [axis.padding_end for axis in axes]), value=-1)
    for number, axis in enumerate(axes):
        reach = (axis.kernel - 1) * axis.dilation + 1
        windows = windows.unfold(number, reach, axis.stride)[..., :: axis.dilation]
    pixels = windows.reshape(prod(axis.positions for axis in axes), -1)
    return pixels.clamp_min(0), pixels >= 0
