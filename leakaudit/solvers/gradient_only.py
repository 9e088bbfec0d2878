"""Gradient constraints alone: factor the matrix of each stride phase once, solve all channels."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.equations.axes import per_filter
from leakaudit.equations.linear_maps import gradient_equations
from leakaudit.equations.phases import axis_phases, phase_systems
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.dense import Factorisation, factorise
from leakaudit.solvers.interface import Cost, Solution, Solver


def largest_phase(layer: ConvolutionGeometry) -> tuple[int, int]:
    """Rows and columns of the largest matrix of one phase."""
    columns = rows = 1
    for axis in layer.axes:
        phases = axis_phases(axis)
        columns *= max((len(phase.pixels) for phase in phases), default=1)
        rows *= max((len(phase.taps) for phase in phases), default=1)
    return rows * (layer.filters // layer.groups), columns


@dataclass(frozen=True, slots=True)
class GradientOnly(Solver):
    """Solves dl/dw = G·P for the layer's input."""

    NAME = "gradient constraints, one factorisation per phase"

    @staticmethod
    def cost(layer: ConvolutionGeometry) -> Cost:
        """A QR factorisation per phase and group, and room for one of them."""
        rows, columns = largest_phase(layer)
        phases = layer.groups * prod(len(axis_phases(axis)) for axis in layer.axes)
        return Cost(phases * rows * columns**2, 8 * 3 * columns * (rows + columns))

    def solve(self, system: LayerSystem) -> Solution:
        equations = gradient_equations(system)
        if equations is None or system.dw is None or system.G is None:
            raise ValueError("gradient constraints need dl/dw and dl/do")
        operator, target = equations
        layer, shape = system.geometry, system.convolution.input_shape
        g, f, n = layer.groups, layer.filters // layer.groups, layer.channels // layer.groups
        G = system.G.transpose(0, 1)  # (F, B, O..)
        dw = system.dw.reshape(layer.filters, n, -1)  # (F, n, k)
        channels = G.new_zeros((layer.channels, shape[0] * prod(shape[2:])))  # (N, B·H..)
        rank = 0
        condition = 1.0
        kept: list[float] = []
        factors: dict[tuple[int, object], Factorisation] = {}
        for phase in phase_systems(layer.axes):
            pixels, taps = phase.pixels.to(G.device), phase.taps.to(G.device)
            for group in range(g):
                filters = slice(group * f, (group + 1) * f)
                scale = operator.scale[filters]
                key = (group, phase.signature)
                if key not in factors:
                    scaled = G[filters] * per_filter(scale, G)
                    factors[key] = factorise(phase.matrix(scaled), system.precision)
                factor = factors[key]
                rhs = dw[filters][:, :, taps] * scale[:, None, None]  # (f, n, J)
                rhs = rhs.transpose(1, 2).reshape(-1, n)  # (f·J, n)
                members = torch.arange(group * n, (group + 1) * n, device=G.device)
                channels[members[:, None], pixels[None, :]] = factor.solve(rhs).T
                rank += n * factor.rank
                condition = max(condition, factor.condition)
                kept += factor.singular_values[[0, -1]].tolist() if factor.rank else []
        x = channels.reshape(layer.channels, shape[0], *shape[2:]).transpose(0, 1).contiguous()
        norm, left = float(target.norm()), float((operator.mv(x) - target).norm())
        residual = left / norm if norm else left
        extremes = (max(kept), min(kept)) if kept else None
        return Solution(x, self.NAME, "", x.numel(), rank, condition, residual, 0, extremes)
