"""What an underdetermined layer still gives away: the smoothest picture that fits its equations."""

from __future__ import annotations

import torch
from torch import Tensor


def differences(x: Tensor) -> Tensor:
    """First differences along both spatial axes, flattened.

    Args:
        x: (m, N, H, W), m pictures.

    Returns:
        (m, equations).
    """
    vertical = x[:, :, 1:] - x[:, :, :-1]
    horizontal = x[:, :, :, 1:] - x[:, :, :, :-1]
    return torch.cat([vertical.flatten(1), horizontal.flatten(1)], dim=1)


def smoothest(x: Tensor, null_space: Tensor) -> Tensor:
    """Among all solutions x + Z z of a layer's equations, the one with the smallest differences.

    Natural pictures are mostly smooth, and the equations fix the rest: this is the prior that
    needs no training data. The result is clipped to [0, 1].

    Args:
        x: One solution, (1, N, H, W) float64.
        null_space: Z, a basis of what the equations leave open, (|X|, m) with m >= 1.
    """
    directions = differences(null_space.T.reshape(-1, *x.shape[1:])).T  # (equations, m)
    target = -differences(x)[0]
    normal = directions.T @ directions
    # A picture of one grey has no differences: the tiny ridge keeps that direction at its
    # minimum-norm value.
    ridge = 1e-12 * normal.diagonal().max()
    normal.diagonal().add_(ridge)
    z = torch.linalg.solve(normal, directions.T @ target)
    picture: Tensor = (x.reshape(-1) + null_space @ z).reshape(x.shape)
    return picture.clamp(0, 1)
