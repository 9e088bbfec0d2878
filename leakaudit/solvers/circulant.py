"""A preconditioner for weight constraints: the layer on a torus, inverted by Fourier transforms.

On a torus, and with every output known to the same degree, BᵀB is the same at every cell of
stride x stride pixels: block circulant, so that a Fourier transform splits it into one small
Hermitian matrix per frequency (T. Chan, An optimal circulant preconditioner for Toeplitz systems,
1988; here for blocks). What is left to the iteration are the borders, the outputs that are not
known, and the gradient constraints.
"""

from __future__ import annotations

import itertools
from math import prod
from typing import Any

import torch
from torch import Tensor

from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.normal_operator import NormalOperator

# Of the largest eigenvalue: keeps frequencies that no filter sees from being blown up.
FLOOR = 1e-5
# A diagonal is taken to be at least this share of that on the torus.
SMALLEST_SHARE = 1e-3
_CHUNK = 1 << 22  # numbers of the symbol that are inverted at once


class ScaledCirculant:
    """Approximates (SᵀS)⁻¹ as D·C⁻¹·D; symmetric positive semidefinite.

    C is the circulant of the weight constraints, plus what the gradient constraints add to the
    diagonal on average; D scales C's diagonal to that of SᵀS, which knows of borders and of outputs
    that are not known. Works in complex64: a preconditioner needs no more digits, and half the
    memory is half the time.
    """

    def __init__(self, system: LayerSystem, operator: NormalOperator) -> None:
        """Build the symbol of C and invert it.

        Args:
            system: Its outputs are known somewhere.
            operator: The same equations, scaled.

        Raises:
            ValueError: No output is known.
        """
        if operator.weight is None:
            raise ValueError("the circulant preconditioner needs known outputs")
        W, mask = operator.weight.W, operator.weight.mask
        op = system.convolution.op
        self._stride = op.stride
        self._shape = system.convolution.input_shape
        offsets = [begin % s for begin, s in zip(op.padding_begin, op.stride, strict=True)]
        # Where the layer's input lies in the grid of whole cells.
        ends = zip(offsets, self._shape[2:], strict=True)
        self._inside = (slice(None), slice(None), *(slice(at, at + size) for at, size in ends))
        self._cells = [
            max(-(-(size + offset) // s), axis.positions)
            for size, offset, s, axis in zip(
                self._shape[2:], offsets, op.stride, system.geometry.axes[1:], strict=True
            )
        ]
        self._sides = [m * s for m, s in zip(self._cells, op.stride, strict=True)]
        self._groups = op.groups
        self._parts = system.w.shape[1] * prod(op.stride)
        known = mask.transpose(0, 1).flatten(1).mean(dim=1)  # (F,)
        stencil, spans = _stencil(W * known.view(self._groups, -1, 1).sqrt(), system)
        diagonal = operator.diagonal
        unknowns = diagonal.numel()
        added = 0.0 if system.dw is None else system.dw.numel() / unknowns  # rows have unit norm
        blocks = _symbol(stencil, spans, self._cells)
        self._inverse = _inverted(blocks, added)
        origin = (0,) * len(spans)
        at_origin: tuple[Any, ...] = (..., *origin)
        mean = stencil[at_origin].diagonal(dim1=1, dim2=2)  # (g, p)
        reference = self._from_parts(
            (mean + added)[None, :, :, *[None] * len(spans)].expand(
                self._shape[0], self._groups, self._parts, *self._cells
            )
        )
        # A pixel that nothing reads has a zero on the diagonal, and stays 0.
        scale = (reference / diagonal.clamp_min(SMALLEST_SHARE * reference)).sqrt()
        self._scale = torch.where(diagonal > 0, scale, torch.zeros_like(scale))

    def __call__(self, y: Tensor) -> Tensor:
        """Apply to y (m, B, N, H..), m of the layer's inputs, float64."""
        return self._apply(y[0])[None] if len(y) == 1 else torch.stack([*map(self._apply, y)])

    def _apply(self, y: Tensor) -> Tensor:
        y = y * self._scale
        size = y.abs().amax().clamp_min(torch.finfo(torch.float64).tiny)
        parts = self._to_parts((y / size).float())
        axes = tuple(range(3, parts.dim()))
        spectrum = torch.fft.rfftn(parts, dim=axes)
        B, g, p = spectrum.shape[:3]
        vectors = spectrum.reshape(B, g, p, -1).permute(1, 3, 2, 0).reshape(-1, p, B)
        solved = torch.bmm(self._inverse, vectors)
        back = solved.view(g, -1, p, B).permute(3, 0, 2, 1).reshape(spectrum.shape)
        parts = torch.fft.irfftn(back, s=self._cells, dim=axes)
        return self._from_parts(parts).double() * size * self._scale

    def _to_parts(self, y: Tensor) -> Tensor:
        """(B, N, H..) to (B, g, p, cells..): the pixels of a cell side by side, zeros around."""
        B, N = self._shape[:2]
        d = len(self._cells)
        grid = y.new_zeros((B, N, *self._sides))
        grid[self._inside] = y
        split = [size for pair in zip(self._cells, self._stride, strict=True) for size in pair]
        order = [0, 1, *range(3, 3 + 2 * d, 2), *range(2, 2 + 2 * d, 2)]
        parts = grid.view(B, N, *split).permute(order)
        return parts.reshape(B, self._groups, self._parts, *self._cells)

    def _from_parts(self, parts: Tensor) -> Tensor:
        """The inverse of `_to_parts`, zeros around left out."""
        B, N = self._shape[:2]
        d = len(self._cells)
        order = [0, 1, *(axis for i in range(d) for axis in (2 + d + i, 2 + i))]
        grid = parts.reshape(B, N, *self._stride, *self._cells).permute(order)
        return grid.reshape(B, N, *self._sides)[self._inside]


def _stencil(W: Tensor, system: LayerSystem) -> tuple[Tensor, list[int]]:
    """How BᵀB with weights W (g, f, n·k) on a torus couples cells, and how many a patch spans along
    each axis: (g, p, p, 2·span - 1 ..), negative shifts at the end."""
    op = system.convolution.op
    g, f, _ = W.shape
    n = system.w.shape[1]
    spans = [
        (K - 1) * d // s + 1 for K, d, s in zip(op.kernel, op.dilation, op.stride, strict=True)
    ]
    taps = W.view(g, f, n, *op.kernel)
    every: tuple[Any, ...] = (slice(None),) * 3
    poly = W.new_zeros((g, f, n, *op.stride, *spans))  # taps by stride phase and cell
    for tap in itertools.product(*map(range, op.kernel)):
        at = [t * d for t, d in zip(tap, op.dilation, strict=True)]
        phase = [a % s for a, s in zip(at, op.stride, strict=True)]
        cell = [a // s for a, s in zip(at, op.stride, strict=True)]
        poly[(*every, *phase, *cell)] = taps[(*every, *tap)]
    poly = poly.reshape(g, f, n * prod(op.stride), *spans)
    # The autocorrelation, summed over the filters, by a transform just large enough for it.
    axes = tuple(range(3, poly.dim()))
    transformed = torch.fft.fftn(poly, s=[2 * span - 1 for span in spans], dim=axes)
    product = torch.einsum("gfp...,gfq...->gpq...", transformed, transformed.conj())
    stencil: Tensor = torch.fft.ifftn(product, dim=axes).real
    return stencil, spans


def _symbol(stencil: Tensor, spans: list[int], cells: list[int]) -> Tensor:
    """Its Fourier transform over a torus of cells, a Hermitian block per frequency: (m, p, p)."""
    g, p = stencil.shape[:2]
    grid = torch.zeros((g, p, p, *cells), dtype=torch.float32, device=stencil.device)
    for shift in itertools.product(*(range(2 * span - 1) for span in spans)):
        # Beyond the span, shifts are negative; on a small torus several fall together.
        to = [
            (a if a < span else a - (2 * span - 1)) % m
            for a, span, m in zip(shift, spans, cells, strict=True)
        ]
        into: tuple[Any, ...] = (..., *to)
        source: tuple[Any, ...] = (..., *shift)
        grid[into] += stencil[source]
    spectrum: Tensor = torch.fft.rfftn(grid, dim=tuple(range(3, grid.dim())))
    return spectrum.reshape(g, p, p, -1).permute(0, 3, 1, 2).reshape(-1, p, p)


def _inverted(blocks: Tensor, added: float) -> Tensor:
    """(block + added·I)⁻¹ for Hermitian blocks (m, p, p), in place and chunk by chunk."""
    p = blocks.shape[1]
    identity = torch.eye(p, dtype=blocks.dtype, device=blocks.device)
    # The largest absolute row sum bounds the largest eigenvalue.
    floor = FLOOR * float(blocks.abs().sum(dim=2).max())
    step = max(1, _CHUNK // p**2)
    for start in range(0, blocks.shape[0], step):
        part = blocks[start : start + step] + (added + floor) * identity
        blocks[start : start + step] = torch.cholesky_inverse(torch.linalg.cholesky(part))
    return blocks
