"""The normal matrix of the gradient constraints, factored phase by phase: a base with a border.

A gradient constraint reads one channel and the pixels of one stride phase, and all channels of a
group share its row: AᵀA is block diagonal, with equal blocks for the channels. Where that leaves
little open and few outputs are known, the weight constraints are the border.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.equations.axes import padded_sizes, per_filter, unknown_numbers, without_padding
from leakaudit.equations.convolution import Convolution
from leakaudit.equations.phases import axis_phases, phase_systems
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.bordered import Base, Bordered, base_shift
from leakaudit.solvers.conjugate_gradients import Preconditioner
from leakaudit.solvers.dense import rows_times
from leakaudit.solvers.factored import Factored
from leakaudit.solvers.interface import Cost
from leakaudit.solvers.normal_operator import NormalOperator, WeightRows


@dataclass(frozen=True, slots=True)
class BorderedPhases(Factored):
    """The gradient constraints are the base, a block per phase and channel."""

    NAME = "conjugate gradients, preconditioned by the phases' Cholesky factors with a border"
    MATRIX = "their normal matrix, as a block per phase with a border,"

    @staticmethod
    def has_base(layer: ConvolutionGeometry) -> bool:
        return layer.observed

    @staticmethod
    def cost(layer: ConvolutionGeometry) -> Cost:
        """What factoring the blocks takes, with their border."""
        n, f = layer.channels // layer.groups, layer.filters // layer.groups
        unknowns = layer.channels * prod(axis.size for axis in layer.axes)
        border = layer.filters * prod(axis.positions for axis in layer.axes)
        products = unknowns * border**2 // 2 + border**3 // 3
        numbers = 2 * unknowns * border + 3 * border**2
        for phases in itertools.product(*(axis_phases(axis) for axis in layer.axes)):
            p = prod(len(phase.pixels) for phase in phases)
            rows = f * prod(len(phase.taps) for phase in phases)
            products += layer.groups * (p**2 * rows + p**3 + n * p**2 * border)
            numbers += layer.groups * (p * rows + 2 * p**2)
        return Cost(products, 4 * numbers)

    def factor(self, system: LayerSystem, operator: NormalOperator) -> Preconditioner:
        return Bordered(PhaseBase(system, operator))


class PhaseBase(Base):
    """L of AᵀA + shift·I; see `bordered.Base`."""

    def __init__(self, system: LayerSystem, operator: NormalOperator) -> None:
        if operator.gradient is None:
            raise ValueError("phases need gradient constraints")
        self._convolution = system.convolution
        self._weight = operator.weight
        shift = base_shift(operator)
        groups = system.convolution.op.groups
        shape = system.convolution.input_shape
        rows = operator.gradient.G.transpose(0, 1)
        G = (rows * per_filter(operator.gradient.scale, rows)).float()  # (F, B, O..)
        numbers = unknown_numbers(shape).reshape(groups, -1, shape[0] * prod(shape[2:]))
        self._inverses: list[Tensor] = []  # (p, p), of L
        unknowns = []
        for phase in phase_systems(system.geometry.axes):
            for group, filters in enumerate(G.chunk(groups)):
                T = phase.matrix(filters)
                gram = T.T @ T
                gram.diagonal().add_(shift)
                L = torch.linalg.cholesky(gram)
                identity = torch.eye(len(L), dtype=L.dtype, device=L.device)
                self._inverses.append(torch.linalg.solve_triangular(L, identity, upper=False))
                unknowns.append(numbers[group][:, phase.pixels].flatten())
        self._channels = numbers.shape[1]
        self.unknowns = torch.cat(unknowns).to(G.device)

    def border(self) -> Tensor | None:
        """B without the outputs that are not known (known, R), float32."""
        if self._weight is None:
            return None
        return weight_rows(self._convolution, self._weight)[:, self.unknowns]

    def forward(self, vectors: Tensor) -> Tensor:
        return self._multiplied(vectors, self._inverses)

    def backward(self, vectors: Tensor) -> Tensor:
        return self._multiplied(vectors, [inverse.T for inverse in self._inverses])

    def _multiplied(self, vectors: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        """Each block of the vectors by its own matrix (p, p), in place."""
        sizes = [self._channels * len(matrix) for matrix in matrices]
        parts = vectors.split_with_sizes(sizes, dim=1)
        for part, matrix in zip(parts, matrices, strict=True):
            block = part.view(len(vectors), self._channels, len(matrix))
            block.copy_(rows_times(block.reshape(-1, len(matrix)), matrix).view(block.shape))
        return vectors


def weight_rows(convolution: Convolution, weight: WeightRows) -> Tensor:
    """B without the outputs that are not known: (known, |X|), float32."""
    op, shape = convolution.op, convolution.input_shape
    d = len(op.kernel)
    g, f, _ = weight.W.shape
    n = shape[1] // g
    spatial = shape[2:]
    outputs = weight.mask.shape[2:]
    padded = padded_sizes(spatial, op.padding_begin, op.padding_end)
    W = weight.W.float().view(g, f, n, *op.kernel)
    whole = W.new_zeros((g * f, *outputs, shape[1], *padded))
    steps = whole.stride()
    at_output, at_channel, at_pixel = steps[1 : 1 + d], steps[1 + d], steps[2 + d :]
    for group in range(g):
        # Output o reads, at tap t, pixel o·stride + t·dilation.
        taps = whole.narrow(0, group * f, f).narrow(1 + d, group * n, n)
        taps = taps.as_strided(
            (f, *outputs, n, *op.kernel),
            (
                steps[0],
                *(a + b * s for a, b, s in zip(at_output, at_pixel, op.stride, strict=True)),
                at_channel,
                *(b * step for b, step in zip(at_pixel, op.dilation, strict=True)),
            ),
        )
        taps.copy_(W[group].view(f, *[1] * d, n, *op.kernel).expand_as(taps))
    whole = without_padding(whole, op.padding_begin, spatial, first=2 + d)
    rows = whole.flatten(1 + d).flatten(0, d)  # (F·O.., N·H..)
    known = [rows[mask.flatten() > 0] for mask in weight.mask]  # per example
    every: Tensor = torch.block_diag(*known)  # type: ignore[no-untyped-call]  # torch's own
    return every
