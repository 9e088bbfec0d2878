"""Which axes numbers stand for: per channel, per filter, by unknown; padding of spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """(N,), or one value for all, shaped to broadcast over `like` (B, N, ..)."""
    if values.numel() == 1:
        return values.reshape(())  # `like` may have a single axis
    return values.view(1, -1, *[1] * (like.dim() - 2))


def per_filter(values: Tensor, like: Tensor) -> Tensor:
    """(F,) shaped to broadcast over `like` (F, ..)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def torch_padding(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """Padding by axis as torch.nn.functional.pad takes it: begin and end, the last axis first."""
    pairs = zip(reversed(begin), reversed(end), strict=True)
    return [size for pair in pairs for size in pair]


def padded_sizes(sizes: Sequence[int], begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """Sizes of the spatial axes with their padding."""
    return [a + size + b for a, size, b in zip(begin, sizes, end, strict=True)]


def without_padding(
    padded: Tensor, begin: Sequence[int], sizes: Sequence[int], first: int = 2
) -> Tensor:
    """A view without the padding of the spatial axes, the first of which is `first`."""
    for axis, (start, size) in enumerate(zip(begin, sizes, strict=True), start=first):
        padded = padded.narrow(axis, start, size)
    return padded


def unknown_numbers(shape: Sequence[int]) -> Tensor:
    """Number of each unknown in x (B, N, H..) flattened, arranged (N, B·H..)."""
    return torch.arange(prod(shape)).reshape(*shape).transpose(0, 1).reshape(shape[1], -1)
