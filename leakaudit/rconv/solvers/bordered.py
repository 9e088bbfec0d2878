"""The normal matrix of both sets of equations, factored as a band with a border.

A weight constraint reads one patch, so BᵀB is banded in the rows of the picture: its block Cholesky
factor L costs |X| times the squared width of the band instead of |X|³ / 3. The gradient constraints
are dense but few; with W = L⁻¹Aᵀ they are a border,

    (BᵀB + shift·I + AᵀA)⁻¹ = L⁻ᵀ (I - W (I + WᵀW)⁻¹ Wᵀ) L⁻¹

(Woodbury, 1950). All of it is in float32: it preconditions an iteration in float64, which then
takes a few steps.
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
from leakaudit.rconv.convolution import Convolution
from leakaudit.rconv.solvers.dense import cholesky_solve
from leakaudit.rconv.solvers.interface import LayerSystem
from leakaudit.rconv.solvers.normal_operator import GradientRows, NormalOperator, WeightRows

# Added to the diagonal, relative to the largest eigenvalue: float32 then factors BᵀB even where the
# weight constraints alone leave something open, and well-determined directions hardly notice.
SHIFT = 1e-5
_BLOCK = 192  # unknowns per block, about: small ones are all overhead, large ones mostly zeros
_STRIP = 320  # columns of a Gram matrix computed at once


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


def bordered_cost(layer: ConvolutionGeometry) -> tuple[int, int]:
    """Multiplications that factoring takes, and the bytes of its factors."""
    band = band_of(layer)
    unknowns = layer.axes[0].size * band.blocks * band.size
    width = band.width * band.size
    border = 0
    if layer.observed:
        border = layer.channels * layer.filters // layer.groups
        border *= prod(axis.kernel for axis in layer.axes)
    products = unknowns * (width**2 + 2 * width * band.size + width * border + border**2 // 2)
    numbers = unknowns * (3 * width + 2 * band.size + 2 * border) + 3 * border**2
    # What the rows of outputs add to BᵀB, each by itself where some outputs are not known.
    taps = layer.axes[1].kernel * band.per_row
    outputs = layer.filters * prod(axis.positions for axis in layer.axes[2:])
    numbers += layer.axes[0].size * layer.axes[1].positions * taps * (taps + outputs)
    return products + border**3 // 3, 4 * numbers


class Bordered:
    """Approximates (SᵀS)⁻¹; symmetric positive definite."""

    NAME = "preconditioned by a band's Cholesky factor with a border"

    def __init__(self, system: LayerSystem, operator: NormalOperator) -> None:
        """Factor.

        Args:
            system: Its outputs are known somewhere.
            operator: The same equations, scaled.

        Raises:
            ValueError: No output is known.
        """
        if operator.weight is None:
            raise ValueError("a band needs weight constraints")
        self._shape = system.convolution.input_shape
        self._band = band_of(system.geometry)
        lower = _band_blocks(system.convolution, self._band, operator.weight)
        # The largest entry of the diagonal is of the order of the largest eigenvalue.
        lower[:, :, 0].diagonal(dim1=2, dim2=3).add_(SHIFT * float(operator.diagonal().max()))
        self._inverses, self._left, self._right = _factor(lower)
        self._W: Tensor | None = None
        if operator.gradient is not None:
            border = _border(system.convolution, self._band, operator.gradient)
            self._W = self._forward(border).flatten(0, 2)  # (B·H.., |A|)
            # In float64: where W is large, 1 - w² / (1 + w²) below cancels.
            gram = _gram(self._W).double()
            gram.diagonal().add_(1)
            self._core = torch.linalg.cholesky(gram)

    def __call__(self, y: Tensor) -> Tensor:
        """Apply to y of the layer's input shape (B, N, H..), float64."""
        size = y.abs().amax().clamp_min(torch.finfo(torch.float64).tiny)
        u = self._forward(_to_blocks((y / size).float(), self._band)[..., None])
        if self._W is not None:
            flat = u.reshape(-1, 1)
            weights = cholesky_solve((self._W.T @ flat).double(), self._core)
            u = (flat - self._W @ weights.float()).view(u.shape)
        z = self._backward(u)[..., 0]
        return _from_blocks(z, self._band, self._shape).double() * size

    def _forward(self, rhs: Tensor) -> Tensor:
        """L⁻¹ rhs for rhs (B, blocks, size, m), in place: the border is large."""
        for i in range(self._band.blocks):
            row = rhs[:, i]
            if near := min(i, self._band.width):
                left = self._left[:, i, :, (self._band.width - near) * self._band.size :]
                row.baddbmm_(left, rhs[:, i - near : i].flatten(1, 2), alpha=-1)
            row.copy_(torch.bmm(self._inverses[:, i], row))
        return rhs

    def _backward(self, rhs: Tensor) -> Tensor:
        """L⁻ᵀ rhs for rhs (B, blocks, size, m), in place."""
        for i in reversed(range(self._band.blocks)):
            row = rhs[:, i]
            if near := min(self._band.blocks - 1 - i, self._band.width):
                right = self._right[:, i, :, : near * self._band.size]
                row.baddbmm_(right, rhs[:, i + 1 : i + 1 + near].flatten(1, 2), alpha=-1)
            row.copy_(torch.bmm(self._inverses[:, i].transpose(1, 2), row))
        return rhs


def _factor(lower: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Block Cholesky of a band.

    Args:
        lower: Block (i, i - j) of the matrix at [:, i, j], (B, blocks, width + 1, size, size);
            overwritten.

    Returns:
        The inverses of L's diagonal blocks (B, blocks, size, size); per block row of L what stands
        left of the diagonal (B, blocks, size, width·size); the same for Lᵀ, right of it.
    """
    B, blocks, near, size = lower.shape[:4]
    identity = torch.eye(size, dtype=lower.dtype, device=lower.device)
    inverses = torch.empty_like(lower[:, :, 0])
    for i in range(blocks):
        L = torch.linalg.cholesky(lower[:, i, 0])
        inverses[:, i] = torch.linalg.solve_triangular(L, identity.expand_as(L), upper=False)
        last = min(near - 1, blocks - 1 - i)
        for j in range(1, last + 1):
            lower[:, i + j, j] = torch.bmm(lower[:, i + j, j], inverses[:, i].transpose(1, 2))
        for j in range(1, last + 1):
            for k in range(1, j + 1):
                # Block (i + j, i + k) loses the product of what rows i + j and i + k have at i.
                lower[:, i + j, j - k].baddbmm_(
                    lower[:, i + j, j], lower[:, i + k, k].transpose(1, 2), alpha=-1
                )
    left = lower.new_zeros((B, blocks, size, near - 1, size))
    right = torch.zeros_like(left)
    for j in range(1, near):
        left[:, :, :, near - 1 - j] = lower[:, :, j]
        right[:, : blocks - j, :, j - 1] = lower[:, j:, j].transpose(2, 3)
    return inverses, left.flatten(3), right.flatten(3)


def _gram(W: Tensor) -> Tensor:
    """WᵀW, of which only the lower triangle is filled, by strips of columns."""
    columns = W.shape[1]
    gram = W.new_zeros((columns, columns))
    for start in range(0, columns, _STRIP):
        end = min(start + _STRIP, columns)
        torch.mm(W[:, start:].T, W[:, start:end], out=gram[start:, start:end])
    return gram


def _to_blocks(x: Tensor, band: Band) -> Tensor:
    """(B, N, H..) to (B, blocks, size), row by row of the picture, zeros at the end."""
    rows = x.transpose(1, 2).flatten(2)  # (B, H_1, per_row)
    missing = band.blocks * band.rows - rows.shape[1]
    return F.pad(rows, (0, 0, 0, missing)).reshape(x.shape[0], band.blocks, band.size)


def _from_blocks(y: Tensor, band: Band, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `_to_blocks`."""
    rows = y.reshape(shape[0], band.blocks * band.rows, band.per_row)[:, : shape[2]]
    return rows.reshape(shape[0], shape[2], shape[1], *shape[3:]).transpose(1, 2)


def _band_blocks(convolution: Convolution, band: Band, weight: WeightRows) -> Tensor:
    """BᵀB: block (i, i - j) at [:, i, j] of (B, blocks, width + 1, size, size)."""
    op, shape = convolution.op, convolution.input_shape
    B, height, width = shape[0], shape[2], band.per_row
    kernel, stride, dilation, begin = (
        op.kernel[0],
        op.stride[0],
        op.dilation[0],
        op.padding_begin[0],
    )
    grams = _row_grams(convolution, weight)  # (B or 1, O_1 or 1, k, per_row, k, per_row)
    positions = weight.mask.shape[2]
    # Block diagonals by distance in rows; rows past the picture keep the identity.
    reach = (kernel - 1) * dilation
    rows_in_all = band.blocks * band.rows
    by_row = grams.new_zeros((B, rows_in_all, reach + 1, width, width))
    by_row[:, height:, 0] = torch.eye(width, dtype=grams.dtype, device=grams.device)
    for t, s in itertools.product(range(kernel), range(kernel)):
        if s > t:
            continue
        # Output rows whose taps t and s both read real rows; t reads row o·stride + t·dil - begin.
        inside = [
            o
            for o in range(positions)
            if o * stride + s * dilation >= begin and o * stride + t * dilation - begin < height
        ]
        if not inside:
            continue
        first = inside[0] * stride + t * dilation - begin
        rows = slice(first, first + (len(inside) - 1) * stride + 1, stride)
        part = grams[:, :, t, :, s]
        if part.shape[1] > 1:
            part = part[:, inside[0] : inside[-1] + 1]
        by_row[:, rows, (t - s) * dilation] += part
    by_block = by_row.view(B, band.blocks, band.rows, reach + 1, width, width)
    lower = grams.new_zeros((B, band.blocks, band.width + 1, band.rows, width, band.rows, width))
    for j, r, q in itertools.product(range(band.width + 1), range(band.rows), range(band.rows)):
        distance = j * band.rows + r - q
        if 0 <= distance <= reach:
            # Cholesky reads the lower triangle of a diagonal block only.
            lower[:, j:, j, r, :, q] = by_block[:, j:, r, distance]
    return lower.view(B, band.blocks, band.width + 1, band.size, band.size)


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
    pads: list[int] = []
    ends = list(zip(op.padding_begin[1:], op.padding_end[1:], strict=True))
    for first, last in reversed(ends):
        pads += [first, last]
    w = weight.W.float().reshape(convolution.weight_shape)
    columns: Tensor = torch.ops.aten.convolution.default(
        F.pad(pictures, pads),
        w,
        None,
        [1, *op.stride[1:]],
        [0] * len(op.kernel),
        [1, *op.dilation[1:]],
        False,
        [0] * len(op.kernel),
        op.groups,
    )  # (k·per_row, F, 1, O_2..)
    rows = columns.flatten(1).T.contiguous()  # (F·O_2.., k·per_row)
    mask = weight.mask.transpose(1, 2).flatten(2)  # (B, O_1, F·O_2..)
    if bool((mask == 1).all()):
        grams = (rows.T @ rows)[None, None]
    else:
        known = mask.float()[..., None] * rows  # (B, O_1, F·O_2.., k·per_row)
        grams = torch.matmul(rows.T, known)
    return grams.view(*grams.shape[:2], kernel, per_row, kernel, per_row)


def _border(convolution: Convolution, band: Band, gradient: GradientRows) -> Tensor:
    """Aᵀ as (B, blocks, size, |A|), its columns by input channel, filter of the group and tap."""
    op, shape = convolution.op, convolution.input_shape
    g = op.groups
    B, N = shape[:2]
    filters = convolution.weight_shape[0]
    f, n = filters // g, N // g
    spatial = shape[2:]
    padded = [
        size + first + last
        for size, first, last in zip(spatial, op.padding_begin, op.padding_end, strict=True)
    ]
    G = (gradient.G * gradient.scale.view(1, -1, *[1] * len(spatial))).float()
    # T: how the gradient of each filter at each tap weighs the pixels, the same for every channel.
    T = G.new_zeros((B, filters, *op.kernel, *padded))
    for tap in itertools.product(*map(range, op.kernel)):
        at: tuple[Any, ...] = (slice(None), slice(None), *tap)
        T[at][(slice(None), slice(None), *_strided(op, tap, G.shape[2:]))] = G
    for axis, (first, size) in enumerate(zip(op.padding_begin, spatial, strict=True)):
        T = T.narrow(2 + len(op.kernel) + axis, first, size)
    k = prod(op.kernel)
    T = T.reshape(B, g, f * k, spatial[0], -1)  # (B, g, f·k, H_1, rest)
    rest = T.shape[4]
    border = T.new_zeros((B, band.blocks * band.rows, N, rest, N, f * k))
    for channel in range(N):
        border[:, : spatial[0], channel, :, channel] = T[:, channel // n].permute(0, 2, 3, 1)
    return border.view(B, band.blocks, band.size, N * f * k)


def _strided(op: Any, tap: tuple[int, ...], positions: torch.Size) -> tuple[slice, ...]:
    """The pixels of the padded picture that a tap reads."""
    return tuple(
        slice(t * d, t * d + (o - 1) * s + 1, s)
        for t, d, s, o in zip(tap, op.dilation, op.stride, positions, strict=True)
    )
