"""Random networks of covered operators: sequences, residual blocks, parallel branches."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

Shape = tuple[int, ...]
MOST = 500  # elements of a tensor: enough for every kind of system, and each is solved quickly
ACTIVATIONS: list[Callable[[], nn.Module]] = [
    lambda: nn.LeakyReLU(0.2),
    nn.ReLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.ELU,
    nn.Softplus,
    lambda: nn.PReLU(init=0.3),
    nn.SELU,
    nn.Softsign,
    lambda: nn.Hardtanh(-0.4, 0.6),
    nn.GELU,
    nn.Identity,
]


class Residual(nn.Module):
    """x + branch(x), or through a projection, normalised, activated."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut, self.after = branch, shortcut, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.shortcut(x) + self.branch(x))


class Parallel(nn.Module):
    """Two branches, one after the other along the channels, or subtracted."""

    def __init__(self, first: nn.Module, second: nn.Module, subtract: bool) -> None:
        super().__init__()
        self.first, self.second, self.subtract = first, second, subtract

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.subtract:
            return self.first(x) - self.second(x)
        return torch.cat([self.first(x), self.second(x)], 1)


class Masked(nn.Module):
    """A stored mask hides elements behind a number, or chooses between two arrangements of x."""

    def __init__(self, kept: torch.Tensor, filling: float | None) -> None:
        super().__init__()
        self.register_buffer("kept", kept)
        self.filling = filling

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.filling is None:
            return torch.where(self.kept, x, x.flip(-1))
        return x.masked_fill(~self.kept, self.filling)


class Stored(nn.Module):
    """x times or plus stored numbers, trained or not."""

    def __init__(self, numbers: torch.Tensor, times: bool, trained: bool) -> None:
        super().__init__()
        self.numbers = nn.Parameter(numbers) if trained else None
        self.register_buffer("constant", None if trained else numbers)
        self.times = times

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        numbers = self.constant if self.numbers is None else self.numbers
        return x * numbers if self.times else x + numbers


class Moved(nn.Module):
    """Elements moved, doubled or dropped."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        match self.how:
            case "transpose":
                return x.transpose(2, 3)
            case "flip":
                return x.flip(1)
            case "slice":
                return x[:, :, 1:]
            case "split":
                first, rest = x.split([1, x.shape[1] - 1], 1)
                return torch.cat([rest, first], 1)
            case "scale":
                return 0.5 - 2 * x
            case _:
                return x.repeat(1, 2, 1, 1)


class Tokens(nn.Module):
    """Positions as tokens, through a dense layer over tokens."""

    def __init__(self, dense: nn.Linear, after: nn.Module) -> None:
        super().__init__()
        self.dense, self.after = dense, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.dense(x.flatten(2).transpose(1, 2)))


def _randomised(module: nn.Module, seed: int) -> nn.Module:
    """Weights of a size that keeps gradients alive, and statistics that are not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.PReLU):
            continue
        for parameter in part.parameters(recurse=False):
            drawn = torch.rand(parameter.shape, generator=generator)
            bound = (3 / max(parameter[0].numel(), 1)) ** 0.5 if parameter.dim() > 1 else 0.5
            parameter.data = bound * (2 * drawn - 1)
        if isinstance(part, nn.BatchNorm2d):
            part.weight.data += 1.0
            part.running_mean = torch.rand(part.num_features, generator=generator)
            part.running_var = torch.rand(part.num_features, generator=generator) + 0.5
    return module


@st.composite
def networks(draw: Any) -> tuple[nn.Module, Shape, int]:
    """A network, the shape of its input and a seed for its probe."""
    seed = draw(st.integers(0, 2**16))
    height, width = draw(st.sampled_from([(6, 6), (7, 5), (8, 8), (1, 9)]))
    shape = (1, draw(st.integers(1, 3)), height, width)
    layers: list[nn.Module] = [_convolution(draw, shape), draw(_activation())]
    current = _after(layers, shape)
    for _ in range(draw(st.integers(0, 3))):
        more = draw(st.sampled_from(_BLOCKS))(draw, current, seed)
        grown = _after([*layers, *more], shape)
        if prod(grown) > MOST:
            continue
        layers, current = [*layers, *more], grown
    if draw(st.integers(0, 5)) == 0:
        positions = current[2] * current[3]
        dense = nn.Linear(current[1], draw(st.sampled_from([4, positions + 2])))
        layers.append(Tokens(dense, draw(_activation())))
    layers.append(nn.Flatten())
    features = _after(layers, shape)[1]
    if draw(st.booleans()):
        middle = draw(st.sampled_from([4, features + 1]))
        layers += [nn.Linear(features, middle, bias=draw(st.booleans())), draw(_activation())]
        features = middle
    layers.append(nn.Linear(features, 7, bias=draw(st.integers(0, 4)) > 0))
    return _randomised(nn.Sequential(*layers), seed), shape, seed


def _activation() -> Any:
    return st.sampled_from(ACTIVATIONS).map(lambda make: make())


def _after(layers: list[nn.Module], shape: Shape) -> Shape:
    x = torch.zeros(shape)
    for layer in layers:
        x = layer.float().eval()(x)
    return tuple(x.shape)


def _convolution(draw: Any, shape: Shape) -> nn.Module:
    channels, height, width = shape[1:]
    groups = channels if draw(st.integers(0, 4)) == 0 else 1
    kernel = min(draw(st.sampled_from([1, 2, 3, 5])), height), min(draw(st.integers(1, 3)), width)
    return nn.Conv2d(
        channels,
        groups * draw(st.sampled_from([2, 4, 6, 8])),
        kernel,
        stride=draw(st.sampled_from([1, 1, 2])),
        padding=draw(st.integers(0, 2)),
        groups=groups,
        bias=draw(st.booleans()),
    )


def _plain(draw: Any, shape: Shape, seed: int) -> list[nn.Module]:
    return [_convolution(draw, shape), draw(_activation())]


def _residual(draw: Any, shape: Shape, seed: int) -> list[nn.Module]:
    channels = shape[1]
    inner, kernel = channels + draw(st.sampled_from([0, 2])), draw(st.sampled_from([3, 5]))
    branch = nn.Sequential(
        nn.Conv2d(channels, inner, kernel, padding=kernel // 2),
        draw(_activation()),
        nn.Conv2d(inner, channels, kernel, padding=kernel // 2),
    )
    projected = draw(st.integers(0, 3)) == 0
    shortcut = nn.Conv2d(channels, channels, 1) if projected else nn.Identity()
    norm = nn.BatchNorm2d(channels) if draw(st.booleans()) else nn.Identity()
    return [Residual(branch, shortcut, nn.Sequential(norm, draw(_activation())))]


def _parallel(draw: Any, shape: Shape, seed: int) -> list[nn.Module]:
    channels = shape[1]
    first = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), draw(_activation()))
    second = nn.Conv2d(channels, channels, 1) if draw(st.booleans()) else draw(_activation())
    return [Parallel(first, second, draw(st.booleans()))]


def _masked(draw: Any, shape: Shape, seed: int) -> list[nn.Module]:
    generator = torch.Generator().manual_seed(seed)
    part = draw(st.sampled_from([shape, shape[2:], shape[3:]]))
    kept = torch.rand(part, generator=generator) < draw(st.sampled_from([0.5, 0.9, 1.1]))
    return [Masked(kept, draw(st.sampled_from([None, 0.0, -3.0])))]


def _stored(draw: Any, shape: Shape, seed: int) -> list[nn.Module]:
    generator = torch.Generator().manual_seed(seed)
    part = draw(st.sampled_from([shape, shape[1:], (shape[1], 1, 1), shape[3:]]))
    numbers = torch.rand(part, generator=generator) + 0.5
    return [Stored(numbers, draw(st.booleans()), draw(st.booleans()))]


def _positioned(draw: Any, shape: Shape, seed: int) -> list[nn.Module]:
    """A learned summand of the tensor's own shape, below something that stops gradients."""
    numbers = torch.zeros(shape)
    mixing = draw(st.sampled_from([nn.Softmax(1), nn.GroupNorm(1, shape[1]), nn.GELU()]))
    return [Stored(numbers, times=False, trained=True), mixing]


def _moved(draw: Any, shape: Shape, seed: int) -> list[nn.Module]:
    kinds = ["transpose", "flip", "scale", "repeat"]
    kinds += ["slice"] * (shape[2] > 1) + ["split"] * (shape[1] > 1)
    return [Moved(draw(st.sampled_from(kinds)))]


def _pooled(draw: Any, shape: Shape, seed: int) -> list[nn.Module]:
    kinds: list[nn.Module] = [nn.ZeroPad2d(1), nn.BatchNorm2d(shape[1]), nn.GroupNorm(1, shape[1])]
    kinds += [nn.Softmax(1), nn.LayerNorm(shape[1:])]
    if min(shape[2:]) > 1:
        kinds += [nn.AvgPool2d(2, 1), nn.MaxPool2d(2, 2), nn.AdaptiveAvgPool2d(1)]
        kinds.append(nn.Upsample(scale_factor=2))
    return [draw(st.sampled_from(kinds))]


_BLOCKS = [
    *(_plain, _plain, _residual, _residual, _parallel),
    *(_masked, _stored, _positioned, _moved, _pooled),
]
