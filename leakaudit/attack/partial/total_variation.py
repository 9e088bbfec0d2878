"""Total variation: how much a picture changes from pixel to pixel.

Of all pictures that fit a layer's equations, photographs are among those that change least:
flat areas, with edges that all colour channels share. The prior needs no training data (Rudin,
Osher and Fatemi 1992; over all channels together: Blomgren and Chan 1998).
"""

from __future__ import annotations

import torch
from torch import Tensor


def differences(x: Tensor) -> Tensor:
    """Forward differences along both spatial axes, 0 at the far borders.

    Args:
        x: (B, N, H, W).

    Returns:
        (2, B, N, H, W).
    """
    d = x.new_zeros((2, *x.shape))
    d[0, :, :, :-1] = x[:, :, 1:] - x[:, :, :-1]
    d[1, :, :, :, :-1] = x[:, :, :, 1:] - x[:, :, :, :-1]
    return d


def differences_adjoint(d: Tensor) -> Tensor:
    """The adjoint of `differences`: (2, B, N, H, W) to (B, N, H, W)."""
    x = torch.zeros_like(d[0])
    vertical, horizontal = d[0, :, :, :-1], d[1, :, :, :, :-1]
    x[:, :, 1:] += vertical
    x[:, :, :-1] -= vertical
    x[:, :, :, 1:] += horizontal
    x[:, :, :, :-1] -= horizontal
    return x


def shrink(d: Tensor, threshold: float) -> Tensor:
    """Shorten each pixel's gradient by `threshold`, to 0 at most.

    The proximal map of the total variation, the sum over the pixels of the length of their
    gradient, both axes and all channels together.
    """
    length = d.square().sum(dim=(0, 2), keepdim=True).sqrt()
    return d * (1 - threshold / length.clamp_min(threshold))
