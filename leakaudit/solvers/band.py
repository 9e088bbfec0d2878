"""The normal matrix of the weight constraints, factored as a band: a base with a border.

A weight constraint reads one patch, so BᵀB is banded in the rows of the picture: its block Cholesky
factor L costs |X| times the squared width of the band instead of |X|³ / 3. The gradient constraints
are dense but few: they are the border.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.equations.axes import padded_sizes, per_channel, torch_padding, without_padding
from leakaudit.equations.convolution import Convolution, convolve
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.bordered import Base, Bordered, base_shift
from leakaudit.solvers.conjugate_gradients import Preconditioner
from leakaudit.solvers.dense import rows_times
from leakaudit.solvers.factored import Factored
from leakaudit.solvers.interface import Cost
from leakaudit.solvers.normal_operator import GradientRows, NormalOperator, WeightRows

_BLOCK = 192  # unknowns per block, about: small ones are all overhead, large ones mostly zeros


@dataclass(frozen=True, slots=True)
class Band:
    """How the unknowns of one example fall into blocks that only touch near ones.

    Attributes:
        per_row: Unknowns per row of the picture, N·H_2···H_d.
        rows: Rows per block.
        blocks: Number of blocks; the last one may reach past the picture.
        width: Blocks below the one on the diagonal that BᵀB fills.
    """

    per_row: int
    rows: int
    blocks: int
    width: int

    @property
    def size(self) -> int:
        """Unknowns per block."""
        return self.rows * self.per_row


def band_of(layer: ConvolutionGeometry) -> Band:
    """The blocks of a layer's unknowns."""
    axis = layer.axes[1]
    per_row = layer.channels * prod(other.size for other in layer.axes[2:])
    rows = min(axis.size, max(1, round(_BLOCK / per_row)))
    blocks = -(-axis.size // rows)
    reach = (axis.kernel - 1) * axis.dilation  # rows that share a patch are at most so far apart
    return Band(per_row, rows, blocks, min(-(-reach // rows), blocks - 1))


@dataclass(frozen=True, slots=True)
class BorderedBand(Factored):
    """The weight constraints are the base, a band."""

    NAME = "conjugate gradients, preconditioned by a band's Cholesky factor with a border"
    MATRIX = "their normal matrix, as a band with a border,"

    @staticmethod
    def has_base(layer: ConvolutionGeometry) -> bool:
        return layer.outputs_known

    @staticmethod
    def cost(layer: ConvolutionGeometry) -> Cost:
        """What factoring the band takes, with its border."""
        band = band_of(layer)
        unknowns = layer.axes[0].size * band.blocks * band.size
        width = band.width * band.size
        border = 0
        if layer.observed:
            border = layer.channels * layer.filters // layer.groups
            border *= prod(axis.kernel for axis in layer.axes)
        products = unknowns * (width**2 + 2 * width * band.size + width * border + border**2 // 2)
        numbers = unknowns * (2 * width + 2 * band.size + 2 * border) + 3 * border**2
        # What the rows of outputs add to BᵀB, each by itself where some outputs are not known.
        taps = layer.axes[1].kernel * band.per_row
        outputs = layer.filters * prod(axis.positions for axis in layer.axes[2:])
        numbers += layer.axes[0].size * layer.axes[1].positions * taps * (taps + outputs)
        return Cost(products + border**3 // 3, 4 * numbers)

    def factor(self, system: LayerSystem, operator: NormalOperator) -> Preconditioner:
        return Bordered(BandBase(system, operator))


class BandBase(Base):
    """L of BᵀB + shift·I; see `bordered.Base`."""

    def __init__(self, system: LayerSystem, operator: NormalOperator) -> None:
        if operator.weight is None:
            raise ValueError("a band needs weight constraints")
        self._convolution = system.convolution
        self._gradient = operator.gradient
        self._band = band_of(system.geometry)
        factor = _band_blocks(system, self._band, operator.weight, base_shift(operator))
        _factor_in_place(factor, self._band)
        self._rows = self._block_rows(factor)
        shape = system.convolution.input_shape
        numbers = torch.arange(prod(shape)).view(shape).transpose(1, 2).flatten(2)
        missing = self._band.blocks * self._band.rows - shape[2]
        unknowns = F.pad(numbers, (0, 0, 0, missing), value=prod(shape)).flatten()
        self.unknowns = unknowns.to(factor.device)

    def border(self) -> Tensor | None:
        """A (|A|, R), its rows by input channel, filter of the group and tap."""
        if self._gradient is None:
            return None
        return _border(self._convolution, self._band, self._gradient)

    def forward(self, vectors: Tensor) -> Tensor:
        for start, before, left, inverse in self._rows:
            block = vectors[:, start : start + self._band.size]
            rest = block - rows_times(vectors[:, before:start], left) if before < start else block
            block.copy_(rows_times(rest, inverse))
        return vectors

    def backward(self, vectors: Tensor) -> Tensor:
        for start, before, left, inverse in reversed(self._rows):
            block = vectors[:, start : start + self._band.size]
            solved = rows_times(block, inverse.T)
            block.copy_(solved)
            if before < start:
                vectors[:, before:start] -= rows_times(solved, left.T)
        return vectors

    def _block_rows(self, factor: Tensor) -> list[tuple[int, int, Tensor, Tensor]]:
        """Per block row of L: where its unknowns start, and those of the blocks left of the
        diagonal that touch them; what L has there, and the inverse of its diagonal block."""
        size, diagonal = self._band.size, self._band.width * self._band.size
        result = []
        for example in range(factor.shape[0]):
            for i in range(self._band.blocks):
                start = (example * self._band.blocks + i) * size
                near = min(i, self._band.width) * size
                row = factor[example, i]
                left = row[:, diagonal - near : diagonal]
                result.append((start, start - near, left, row[:, diagonal:]))
        return result


def _factor_in_place(H: Tensor, band: Band) -> None:
    """Block Cholesky of a band: H becomes L, with the inverses of its diagonal blocks.

    H has per block row what stands left of the diagonal and on it, of which only the lower triangle
    is read: (B, blocks, size, (width + 1)·size).
    """
    size, width = band.size, band.width
    identity = torch.eye(size, dtype=H.dtype, device=H.device)

    def block(rows: Tensor, i: int, j: int) -> Tensor:
        """Block (i, i - j)."""
        return rows[i, :, (width - j) * size : (width - j + 1) * size]

    for rows in H:
        for i in range(band.blocks):
            L = torch.linalg.cholesky(block(rows, i, 0))
            inverse = torch.linalg.solve_triangular(L, identity, upper=False)
            block(rows, i, 0).copy_(inverse)
            for j in range(1, min(width, band.blocks - 1 - i) + 1):
                below = block(rows, i + j, j)
                below.copy_(below @ inverse.T)
                for k in range(1, j + 1):
                    # Block (i + j, i + k) loses the product of what both rows have at i.
                    other = block(rows, i + k, k)
                    block(rows, i + j, j - k).addmm_(below, other.T, alpha=-1)


def _band_blocks(system: LayerSystem, band: Band, weight: WeightRows, shift: float) -> Tensor:
    """BᵀB + shift·I as `_factor_in_place` takes it, (B, blocks, size, (width + 1)·size)."""
    batch, axis = system.convolution.input_shape[0], system.geometry.axes[1]
    stride = axis.stride
    grams = _row_grams(system.convolution, weight)  # (B or 1, O_1 or 1, k, per_row, k, per_row)
    blocks = grams.new_zeros(
        (batch, band.blocks, band.rows, band.per_row, band.width + 1, band.rows, band.per_row)
    )
    for t, s in itertools.combinations_with_replacement(range(axis.kernel), 2):
        low, high = (tap * axis.dilation - axis.padding_begin for tap in (t, s))
        # Output row o reads picture rows o·stride + low and + high: those whose both are real,
        # by the place of the lower one in its block.
        inside: dict[int, list[int]] = {}
        for o in range(weight.mask.shape[2]):
            if o * stride + low >= 0 and o * stride + high < axis.size:
                inside.setdefault((o * stride + high) % band.rows, []).append(o)
        for place, outputs in inside.items():
            first = (outputs[0] * stride + high) // band.rows
            last = (outputs[-1] * stride + high) // band.rows
            step = (last - first) // max(1, len(outputs) - 1) or 1
            # In blocks, negative or 0; and the place of the higher one in its own.
            distance, other = divmod(place - (s - t) * axis.dilation, band.rows)
            part = grams[:, :, s, :, t]
            if part.shape[1] > 1:
                part = part[:, outputs]
            at = slice(first, last + 1, step)
            blocks[:, at, place, :, band.width + distance, other] += part
    void = band.blocks * band.rows - axis.size  # rows past the picture, in the last block
    for place in range(band.rows):
        diagonal = blocks[:, :, place, :, band.width, place].diagonal(dim1=2, dim2=3)
        diagonal += shift
        if place >= band.rows - void:
            diagonal[:, -1] = 1
    return blocks.view(batch, band.blocks, band.size, -1)


def _row_grams(convolution: Convolution, weight: WeightRows) -> Tensor:
    """What one row of output positions adds to BᵀB: (B, O_1, k, per_row, k, per_row), k the taps
    along the first axis; B = O_1 = 1 where every output is known, all rows being equal then."""
    op, shape = convolution.op, convolution.input_shape
    kernel = op.kernel[0]
    # The layer on a picture of just the rows that one output row reads, without their padding.
    rest = shape[3:]
    per_row = shape[1] * prod(rest)
    unit = torch.eye(kernel * per_row, dtype=torch.float32, device=weight.W.device)
    pictures = unit.view(-1, kernel, shape[1], *rest).transpose(1, 2)
    w = weight.W.float().reshape(convolution.weight_shape)
    free = (0,) * len(op.kernel)
    pads = torch_padding(op.padding_begin[1:], op.padding_end[1:])
    stride, dilation = (1, *op.stride[1:]), (1, *op.dilation[1:])
    columns = convolve(F.pad(pictures, pads), w, stride, free, dilation, op.groups)
    rows = columns.flatten(1).T.contiguous()  # (F·O_2.., k·per_row)
    mask = weight.mask.transpose(1, 2).flatten(2)  # (B, O_1, F·O_2..)
    if bool((mask == 1).all()):
        grams = (rows.T @ rows)[None, None]
    else:
        known = mask.float()[..., None] * rows  # (B, O_1, F·O_2.., k·per_row)
        grams = torch.matmul(rows.T, known)
    return grams.view(*grams.shape[:2], kernel, per_row, kernel, per_row)


def _border(convolution: Convolution, band: Band, gradient: GradientRows) -> Tensor:
    """A as (|A|, R), its rows by input channel, filter of the group and tap."""
    op, shape = convolution.op, convolution.input_shape
    g = op.groups
    B, N = shape[:2]
    filters = convolution.weight_shape[0]
    f, n = filters // g, N // g
    spatial = shape[2:]
    padded = padded_sizes(spatial, op.padding_begin, op.padding_end)
    G = (gradient.G * per_channel(gradient.scale, gradient.G)).float()
    # T: how the gradient of each filter at each tap weighs the pixels, the same for every channel.
    T = G.new_zeros((filters, *op.kernel, B, *padded))
    for tap in itertools.product(*map(range, op.kernel)):
        at: tuple[Any, ...] = (slice(None), *tap)
        # The pixels of the padded picture that the tap reads.
        pixels = (
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, s, o in zip(tap, op.dilation, op.stride, G.shape[2:], strict=True)
        )
        T[at][(slice(None), slice(None), *pixels)] = G.transpose(0, 1)
    T = without_padding(T, op.padding_begin, spatial, first=2 + len(op.kernel))
    T = T.reshape(g, f * prod(op.kernel), B, spatial[0], -1)  # (g, f·k, B, H_1, rest)
    rows = band.blocks * band.rows
    border = T.new_zeros((N, T.shape[1], B, rows, N, T.shape[4]))
    for channel in range(N):
        border[channel, :, :, : spatial[0], channel] = T[channel // n]
    return border.flatten(2).flatten(0, 1)
