"""Small networks on which an audit is easily wrong, each with its input's shape. Seeded."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Case = tuple[nn.Sequential, tuple[int, ...]]


def seeded(make: Callable[[], nn.Sequential]) -> nn.Sequential:
    """A network with weights that every run draws alike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def layer_norm_full(activation: type[nn.Module]) -> Case:
    """A layer normalisation with a scale and a bias for every output; an average hides the rest."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 64, 4, 4),
            nn.LayerNorm([64, 8, 8]),
            activation(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, 10),
        )
    ), (1, 3, 32, 32)


def gelu_wide() -> Case:
    """So many filters that the positive outputs alone are more equations than unknowns."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 80, 5, 2, 2), nn.GELU(), nn.Flatten(), nn.Linear(80 * 256, 10)
        )
    ), (1, 3, 32, 32)


def normalised(norm: Callable[[], nn.Module], bias: bool = False) -> Case:
    """A convolution normalised by the example's own statistics, in training mode."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 5, 2, 2, bias=bias),
            norm(),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(1024, 10),
        ).train()
    ), (1, 3, 16, 16)
