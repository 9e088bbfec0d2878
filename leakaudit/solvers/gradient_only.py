"""Gradient constraints alone: factor the matrix of each stride phase once, solve all channels."""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.equations.linear_maps import GradientConstraints, row_scale
from leakaudit.equations.phases import phase_systems
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.dense import Factorisation, factorise
from leakaudit.solvers.interface import Solution

NAME = "gradient constraints, one factorisation per phase"


def solve(system: LayerSystem, reason: str) -> Solution:
    """Solve dl/dw = G·P for the layer's input.

    Args:
        system: Its `dw` and `G` must be set.
        reason: Why this solver was chosen.
    """
    if system.dw is None or system.G is None:
        raise ValueError("gradient constraints need dl/dw and dl/do")
    layer, shape = system.geometry, system.convolution.input_shape
    g, f, n = layer.groups, layer.filters // layer.groups, layer.channels // layer.groups
    G = system.G.transpose(0, 1)  # (F, B, O..)
    dw = system.dw.reshape(layer.filters, n, -1)  # (F, n, k)
    scale = row_scale(G)
    channels = G.new_zeros((layer.channels, shape[0] * _spatial(shape)))  # (N, B·H..)
    rank = 0
    condition = 1.0
    kept: list[float] = []
    factors: dict[tuple[int, object], Factorisation] = {}
    for phase in phase_systems(layer.axes):
        pixels, taps = phase.pixels.to(G.device), phase.taps.to(G.device)
        for group in range(g):
            filters = slice(group * f, (group + 1) * f)
            s = scale[filters]
            key = (group, phase.signature)
            if key not in factors:
                scaled = G[filters] * s.view(-1, *[1] * (G.dim() - 1))
                factors[key] = factorise(phase.matrix(scaled), system.precision)
            factor = factors[key]
            rhs = dw[filters][:, :, taps] * s[:, None, None]  # (f, n, J)
            rhs = rhs.transpose(1, 2).reshape(-1, n)  # (f·J, n)
            members = torch.arange(group * n, (group + 1) * n, device=G.device)
            channels[members[:, None], pixels[None, :]] = factor.solve(rhs).T
            rank += n * factor.rank
            condition = max(condition, factor.condition)
            kept += factor.singular_values[[0, -1]].tolist() if factor.rank else []
    x = channels.reshape(layer.channels, shape[0], *shape[2:]).transpose(0, 1).contiguous()
    operator = GradientConstraints(system.convolution, system.G, scale)
    target = operator.right_hand_side(system.dw)
    return Solution(
        x=x,
        solver=NAME,
        reason=reason,
        unknowns=x.numel(),
        rank=rank,
        condition=condition,
        residual=relative_residual(operator.mv(x), target),
        singular_values=(max(kept), min(kept)) if kept else None,
    )


def relative_residual(got: Tensor, target: Tensor) -> float:
    """||got - target|| / ||target||; 0 for a target of zeros that is met."""
    norm = float(target.norm())
    difference = float((got - target).norm())
    return difference / norm if norm else difference


def _spatial(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape[2:]:
        size *= length
    return size
