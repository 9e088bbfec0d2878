"""The normal operator SᵀS of a layer's stacked equations, applied tile by tile of output positions.

A tile gathers its patches P once (im2col) and serves both sets of equations: the weight constraints
need W·P and Wᵀ·(.), the gradient constraints G·Pᵀ. Nothing as large as the layer's output is ever
stored, and a tile stays in the processor's cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.equations.axes import padded_sizes, torch_padding, without_padding
from leakaudit.equations.linear_maps import row_scale
from leakaudit.equations.system import LayerSystem

# Numbers in a tile of outputs or of patches: 2 MiB of float64 stay in a processor's cache, a GPU
# wants more work per kernel.
_TILE_ON_CPU = 1 << 18
_TILE_ELSEWHERE = 1 << 26
# Eigenvalues of a normal matrix carry errors of about 1e-16 of the largest, so singular values
# are resolved to about 1e-8 of the largest; below this share they count as zero.
RESOLVED = 1e-7


@dataclass(frozen=True, slots=True)
class Misfit:
    """Sᵀ(rhs - S x), shaped like x, and the norms of rhs - S x and of rhs."""

    gradient: Tensor
    residual: float
    rhs: float


@dataclass(frozen=True, slots=True)
class WeightRows:
    """The weight constraints by filter: W (g, f, n·k) scaled, its scale (F,), mask and o - b."""

    W: Tensor
    scale: Tensor
    mask: Tensor
    o: Tensor


@dataclass(frozen=True, slots=True)
class GradientRows:
    """The gradient constraints by filter: dl/dw (g, f, n·k) scaled, its scale (F,), and dl/do."""

    dw: Tensor
    scale: Tensor
    G: Tensor


@dataclass(frozen=True, slots=True)
class _Tile:
    """Some rows (of the first spatial axis) of one example's output positions."""

    example: int
    rows: slice


class NormalOperator:
    """SᵀS and Sᵀ(rhs - S x), S the scaled gradient and weight constraints of a layer.

    Rows are scaled filter by filter to unit norm, so that neither set outweighs the other. x has
    the layer's input shape (B, N, H..), float64.

    Attributes:
        shape: Of x.
        device: Where it runs.
        weight: The weight constraints, None where no output is known.
        gradient: The gradient constraints, None where there are none.
        diagonal: The diagonal of SᵀS, shaped like x; 0 for unknowns that occur in no equation.
        read: How many unknowns occur in an equation.
        resolved: Singular values of S below this share of the largest count as zero: rounding, or
            the precision of the gradients, drowns them.
    """

    def __init__(self, system: LayerSystem) -> None:
        """Scale the equations that the system has.

        Raises:
            ValueError: It has none.
        """
        self.shape = system.convolution.input_shape
        self.device = system.w.device
        self._op = system.convolution.op
        self._groups = self._op.groups
        self._filters = system.w.shape[0]
        self._positions = tuple(axis.positions for axis in system.geometry.axes[1:])
        self.weight: WeightRows | None = None
        self.gradient: GradientRows | None = None
        if system.o is not None and system.mask is not None:
            scale = row_scale(system.w)
            self.weight = WeightRows(self._rows(system.w, scale), scale, system.mask, system.o)
        if system.dw is not None and system.G is not None:
            scale = row_scale(system.G.transpose(0, 1))
            self.gradient = GradientRows(self._rows(system.dw, scale), scale, system.G)
        if self.weight is None and self.gradient is None:
            raise ValueError("no equations: neither dl/do nor o is known")
        self.diagonal = self._diagonal()
        self.read = int((self.diagonal > 0).sum())
        self.resolved = max(RESOLVED, system.precision)

    def random_point(self) -> Tensor:
        """A standard normal number for every unknown that is read, 0 for the others; always the
        same."""
        generator = torch.Generator().manual_seed(0)
        point = torch.randn(self.shape, generator=generator, dtype=torch.float64)
        return point.to(self.device) * (self.diagonal > 0)

    def apply(self, x: Tensor) -> Tensor:
        """SᵀS x."""
        total, padded, products = self._zeros(), self._padded(x), self._products()
        weight, gradient = self.weight, self.gradient
        tiles = list(self._tiles())
        held = None
        for tile in tiles:
            P = self._patches(padded, tile)  # (g, n·k, t)
            if weight is not None:
                q = torch.bmm(weight.W, P)
                q *= self._part(weight.mask, tile)
                patches = torch.bmm(weight.W.transpose(1, 2), q)
                if gradient is not None and len(tiles) == 1:
                    held = patches  # scattered once, with those of the other set
                else:
                    self._scatter(total, tile, patches)
            if gradient is not None:
                products.baddbmm_(self._part(gradient.G, tile), P.transpose(1, 2))
        if gradient is not None:
            scale = self._by_filter(gradient.scale)
            self._add_adjoint(total, gradient.G, products * scale**2, held)
        return self._cropped(total)

    def misfit(self, x: Tensor) -> Misfit:
        """What the equations leave unexplained at x, and which change of x would explain it."""
        total, padded, products = self._zeros(), self._padded(x), self._products()
        weight, gradient = self.weight, self.gradient
        # Sums in place: results kept for each tile would split the heap into unusable pieces.
        squares = torch.zeros((2,), dtype=torch.float64, device=self.device)
        for tile in self._tiles():
            P = self._patches(padded, tile)
            if weight is not None:
                mask = self._part(weight.mask, tile)
                o = self._part(weight.o, tile) * self._by_filter(weight.scale)
                target = torch.where(mask > 0, o, o.new_zeros(()))
                r = target - torch.bmm(weight.W, P) * mask
                squares += torch.stack([torch.sum(r * r), torch.sum(target * target)])
                self._scatter(total, tile, torch.bmm(weight.W.transpose(1, 2), r))
            if gradient is not None:
                products.baddbmm_(self._part(gradient.G, tile), P.transpose(1, 2))
        if gradient is not None:
            scale = self._by_filter(gradient.scale)
            r = gradient.dw - products * scale
            squares += torch.stack([torch.sum(r * r), torch.sum(gradient.dw**2)])
            self._add_adjoint(total, gradient.G, r * scale)
        residual, rhs = squares.sqrt().tolist()
        return Misfit(self._cropped(total), residual, rhs)

    def _diagonal(self) -> Tensor:
        total = self._zeros()
        for tile in self._tiles():
            if self.weight is not None:
                squares = (self.weight.W**2).transpose(1, 2)
                mask = self._part(self.weight.mask, tile)
                self._scatter(total, tile, torch.bmm(squares, mask))
            if self.gradient is not None:
                G = self._part(self.gradient.G, tile) * self._by_filter(self.gradient.scale)
                squares = (G * G).sum(dim=1, keepdim=True)
                self._scatter(total, tile, squares.expand(-1, self.gradient.dw.shape[2], -1))
        return self._cropped(total)

    def _rows(self, w: Tensor, scale: Tensor) -> Tensor:
        """Weights or their gradients (F, n, K..), scaled, as (g, f, n·k)."""
        return (w.flatten(1) * scale[:, None]).reshape(
            self._groups, self._filters // self._groups, -1
        )

    def _by_filter(self, scale: Tensor) -> Tensor:
        return scale.view(self._groups, -1, 1)

    def _products(self) -> Tensor:
        """Zeros for what the gradient constraints make of x, (g, f, n·k)."""
        size = self.shape[1] // self._groups * prod(self._op.kernel)
        shape = (self._groups, self._filters // self._groups, size)
        return torch.zeros(shape, dtype=torch.float64, device=self.device)

    def _add_adjoint(self, total: Tensor, G: Tensor, y: Tensor, held: Tensor | None = None) -> None:
        """Add Gᵀ y for y (g, f, n·k) at every output position, and patches held of a sole tile."""
        for tile in self._tiles():
            patches = torch.bmm(y.transpose(1, 2), self._part(G, tile))
            self._scatter(total, tile, patches if held is None else patches.add_(held))

    def _tiles(self) -> Iterator[_Tile]:
        per_row = max(self._filters, self.shape[1] * prod(self._op.kernel))
        per_row *= prod(self._positions[1:])
        size = _TILE_ON_CPU if self.device.type == "cpu" else _TILE_ELSEWHERE
        step = max(1, size // per_row)
        for example in range(self.shape[0]):
            for start in range(0, self._positions[0], step):
                yield _Tile(example, slice(start, min(start + step, self._positions[0])))

    def _part(self, y: Tensor, tile: _Tile) -> Tensor:
        """The tile's part of y (B, F, O..) as (g, f, t); a view wherever y is contiguous."""
        part = y[tile.example, :, tile.rows]
        return part.reshape(self._groups, self._filters // self._groups, -1)

    def _padded(self, x: Tensor) -> Tensor:
        pads = torch_padding(self._op.padding_begin, self._op.padding_end)
        return F.pad(x, pads).contiguous()

    def _zeros(self) -> Tensor:
        """Zeros for x with its padding."""
        sizes = padded_sizes(self.shape[2:], self._op.padding_begin, self._op.padding_end)
        return torch.zeros((*self.shape[:2], *sizes), dtype=torch.float64, device=self.device)

    def _cropped(self, padded: Tensor) -> Tensor:
        return without_padding(padded, self._op.padding_begin, self.shape[2:]).contiguous()

    def _windows(self, padded: Tensor, tile: _Tile) -> Tensor:
        """View (N, K_1..K_d, t_1, O_2..O_d) of what every tap reads at the tile's positions."""
        example = padded[tile.example]
        step = example.stride()[1:]
        rows = tile.rows.stop - tile.rows.start
        return example.as_strided(
            (self.shape[1], *self._op.kernel, rows, *self._positions[1:]),
            (
                example.stride(0),
                *(a * d for a, d in zip(step, self._op.dilation, strict=True)),
                *(a * s for a, s in zip(step, self._op.stride, strict=True)),
            ),
            example.storage_offset() + tile.rows.start * self._op.stride[0] * step[0],
        )

    def _patches(self, padded: Tensor, tile: _Tile) -> Tensor:
        windows = self._windows(padded, tile)
        return windows.reshape(self._groups, -1, prod(windows.shape[1 + len(self._op.kernel) :]))

    def _scatter(self, total: Tensor, tile: _Tile, patches: Tensor) -> None:
        """Add patches (g, n·k, t) to the pixels they stand for (col2im), tap by tap.

        Within one tap no pixel occurs twice, so that the sum is the same in every run.
        """
        windows = self._windows(total, tile)
        d = len(self._op.kernel)
        size, step = windows.shape[1 + d :], windows.stride()
        parts = patches.reshape(windows.shape[0], -1, *size).unbind(1)
        for part, tap in zip(parts, itertools.product(*map(range, self._op.kernel)), strict=True):
            # windows[:, tap], without the calls that indexing by each number would take.
            start = sum(a * b for a, b in zip(tap, step[1 : 1 + d], strict=True))
            view = windows.as_strided(
                (windows.shape[0], *size),
                (step[0], *step[1 + d :]),
                windows.storage_offset() + start,
            )
            view += part
