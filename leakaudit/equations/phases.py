"""The gradient constraints of a layer, split into the independent systems of its stride phases.

dl/dw[f, c, tap] = sum over pixels of T[(f, tap), pixel] · x[c, pixel]. T is the same for every
channel c of a group, and taps of different stride phases never read the same pixel: one small
matrix per phase and group, with one right-hand side per channel. For patch embeddings (kernel =
stride) all phases even share one matrix.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from leakaudit.counting.geometry import Axis


@dataclass(frozen=True, slots=True)
class AxisPhase:
    """The taps of one phase along one axis, and the pixels they read.

    Attributes:
        taps: Tap numbers.
        reads: Per tap the output positions at which it reads a real pixel.
        columns: Per tap the first of `pixels`' grid that it reads at its first position.
        pixels: Pixel numbers of the phase, a grid with the stride as step.
        read: Per pixel whether any tap reads it.
    """

    taps: tuple[int, ...]
    reads: tuple[range, ...]
    columns: tuple[int, ...]
    pixels: range
    read: tuple[bool, ...]

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for phases whose matrices are equal."""
        return (self.reads, self.columns, self.read)


@lru_cache(maxsize=1024)
def axis_phases(axis: Axis) -> tuple[AxisPhase, ...]:
    """Split the taps of an axis by stride phase; phases that read nothing are left out."""
    groups: dict[int, list[int]] = {}
    for tap in range(axis.kernel):
        if axis.reads(tap):
            groups.setdefault(axis.phase(tap), []).append(tap)
    result = []
    for taps in groups.values():
        reads = tuple(axis.reads(tap) for tap in taps)
        starts = [
            positions.start * axis.stride + tap * axis.dilation - axis.padding_begin
            for tap, positions in zip(taps, reads, strict=True)
        ]
        ends = [
            start + (len(positions) - 1) * axis.stride
            for start, positions in zip(starts, reads, strict=True)
        ]
        pixels = range(min(starts), max(ends) + 1, axis.stride)
        columns = tuple((start - pixels.start) // axis.stride for start in starts)
        read = [False] * len(pixels)
        for column, positions in zip(columns, reads, strict=True):
            read[column : column + len(positions)] = [True] * len(positions)
        result.append(AxisPhase(tuple(taps), reads, columns, pixels, tuple(read)))
    return tuple(result)


@dataclass(frozen=True, slots=True)
class PhaseSystem:
    """One phase: which unknowns of a channel it fixes, and which weights' gradients say so.

    Attributes:
        axes: The phase along each axis (batch first).
        pixels: Flat indices into (B, H..) of the columns. int64, (p,).
        taps: Flat indices into (K..) of the taps. int64, (J,).
        signature: Equal for phases that share a matrix.
    """

    axes: tuple[AxisPhase, ...]
    pixels: Tensor
    taps: Tensor
    signature: tuple[object, ...]

    def matrix(self, G: Tensor) -> Tensor:
        """T of shape (f·J, p) for the output gradient G of one group, (f, B, O..)."""
        f = G.shape[0]
        grid = [len(axis.pixels) for axis in self.axes]
        choices = list(itertools.product(*(range(len(axis.taps)) for axis in self.axes)))
        T = G.new_zeros((f, len(choices), *grid))
        for row, choice in enumerate(choices):
            pairs = list(zip(self.axes, choice, strict=True))
            source: list[Any] = [slice(a.reads[i].start, a.reads[i].stop) for a, i in pairs]
            target: list[Any] = [
                slice(a.columns[i], a.columns[i] + len(a.reads[i])) for a, i in pairs
            ]
            T[(slice(None), row, *target)] = G[(slice(None), *source)]
        T = T.reshape(f * len(choices), prod(grid))
        # Asked of on the host, and by number: a mask on a GPU would make the host wait for it.
        read = _grid(axis.read for axis in self.axes)
        return T if bool(read.all()) else T[:, read.nonzero().flatten().to(T.device)]


def phase_systems(axes: tuple[Axis, ...]) -> Iterator[PhaseSystem]:
    """All phases of a layer with these axes (batch first)."""
    sizes = [axis.size for axis in axes]
    kernels = [axis.kernel for axis in axes]
    for phases in itertools.product(*(axis_phases(axis) for axis in axes)):
        read = _grid(phase.read for phase in phases)
        pixels = _flat_indices([torch.tensor(list(phase.pixels)) for phase in phases], sizes)
        taps = _flat_indices([torch.tensor(phase.taps) for phase in phases], kernels)
        yield PhaseSystem(phases, pixels[read], taps, tuple(phase.signature for phase in phases))


def _grid(masks: Iterable[tuple[bool, ...]]) -> Tensor:
    """The flat mask of a grid whose axes have these masks."""
    result = torch.ones(1, dtype=torch.bool)
    for mask in masks:
        result = (result[:, None] & torch.tensor(mask)[None, :]).reshape(-1)
    return result


def _flat_indices(indices: list[Tensor], sizes: list[int]) -> Tensor:
    """Row-major flat indices of the grid of these per-axis indices."""
    result = torch.zeros(1, dtype=torch.int64)
    for index, size in zip(indices, sizes, strict=True):
        result = (result[:, None] * size + index[None, :]).reshape(-1)
    return result
