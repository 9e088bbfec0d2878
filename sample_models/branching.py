"""Sample networks that are no chain of layers: vision transformers and residual networks.

One builder without arguments per network, as in networks.py; the loss is cross-entropy. A network
is the same in every run, and building one leaves PyTorch's global generator as it was. The forward
passes take any number of examples.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE_SHAPE = (1, 3, 32, 32)
CLASSES = 10


class VisionTransformer(nn.Module):
    """One encoder block on 8x8 patches of a 32x32 image, the head on the class token.

    Attributes:
        input_shape: The shape of one example, with the batch axis: (1, 3, 32, 32).
    """

    input_shape = IMAGE_SHAPE

    def __init__(self, *, width: int, patch: int, heads: int, learned_positions: bool) -> None:
        super().__init__()
        _, channels, size, _ = IMAGE_SHAPE
        tokens = 1 + (size // patch) ** 2
        self.heads = heads
        self.patch_embedding = nn.Conv2d(channels, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        if learned_positions:
            self.position_embedding = nn.Parameter(torch.empty(1, tokens, width))
        else:
            self.register_buffer("position_embedding", _sinusoidal_positions(tokens, width))
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 2 * width)
        self.mlp_out = nn.Linear(2 * width, width)
        self.norm3 = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        patches = self.patch_embedding(image).flatten(2).transpose(1, 2)  # (batch, 16, width)
        first = self.class_token.expand(image.shape[0], -1, -1)
        x = torch.cat([first, patches], dim=1) + self.position_embedding  # (batch, 17, width)
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp_out(F.gelu(self.mlp_in(self.norm2(x))))
        return self.head(self.norm3(x)[:, 0])

    def attention(self, x: Tensor) -> Tensor:
        """Multi-head self-attention, (batch, tokens, width) to the same."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))


class ResidualBlock(nn.Module):
    """act(x + b(act(a(x)))), channels and size kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(channels, channels, 3, padding=1)
        self.act1 = nn.LeakyReLU(0.2)
        self.b = nn.Conv2d(channels, channels, 3, padding=1)
        self.act2 = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.act2(x + self.b(self.act1(self.a(x))))


class ResidualNetwork(nn.Module):
    """Two strided convolutions with a residual block after one of them, and a dense head.

    Attributes:
        input_shape: The shape of one example, with the batch axis: (1, 3, 32, 32).
    """

    input_shape = IMAGE_SHAPE

    def __init__(self, *, block_after: int, pooled: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 5, stride=2, padding=2)
        self.act1 = nn.LeakyReLU(0.2)
        self.conv2 = nn.Conv2d(12, 16, 5, stride=2, padding=2)
        self.act2 = nn.LeakyReLU(0.2)
        self.block = ResidualBlock(12 if block_after == 1 else 16)
        self.block_after = block_after
        self.pool = nn.AdaptiveAvgPool2d(1) if pooled else nn.Identity()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(16 if pooled else 16 * 8 * 8, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.act1(self.conv1(image))  # (batch, 12, 16, 16)
        if self.block_after == 1:
            x = self.block(x)
        x = self.act2(self.conv2(x))  # (batch, 16, 8, 8)
        if self.block_after == 2:
            x = self.block(x)
        return self.fc1(self.flatten(self.pool(x)))


# --- vision transformers -------------------------------------------------------------------------


def vit() -> VisionTransformer:
    """A small ViT with a learned position embedding."""
    return _vit(learned_positions=True)


def vit_sinusoidal() -> VisionTransformer:
    """vit with fixed sinusoidal positions, which send no gradient."""
    return _vit(learned_positions=False)


# --- residual networks ---------------------------------------------------------------------------


def resnet_leaky() -> ResidualNetwork:
    """The block at 8x8, where its gradient constraints fix what it reads."""
    return _resnet(block_after=2, pooled=False)


def resnet_gap() -> ResidualNetwork:
    """resnet_leaky with global average pooling before the head."""
    return _resnet(block_after=2, pooled=True)


def resnet_short() -> ResidualNetwork:
    """The block one convolution earlier, at 16x16: 1296 gradient constraints for 3072 unknowns."""
    return _resnet(block_after=1, pooled=False)


BRANCHING: tuple[Callable[[], VisionTransformer | ResidualNetwork], ...] = (
    vit,
    vit_sinusoidal,
    resnet_leaky,
    resnet_gap,
    resnet_short,
)


def _sinusoidal_positions(tokens: int, width: int) -> Tensor:
    """The fixed position embedding of "Attention Is All You Need", shape (1, tokens, width)."""
    position = torch.arange(tokens, dtype=torch.float64)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-log(1e4) / width))
    angle = position * frequency  # (tokens, width / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(1, tokens, width).float()


def _vit(*, learned_positions: bool) -> VisionTransformer:
    # A transformer starts from small weights: what (-0.5, 0.5) gives would saturate the attention.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(41)
        network = VisionTransformer(width=64, patch=8, heads=4, learned_positions=learned_positions)
        nn.init.normal_(network.class_token, std=0.02)
        if learned_positions:
            nn.init.normal_(network.position_embedding, std=0.02)
    return network


def _resnet(*, block_after: int, pooled: bool) -> ResidualNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(42)
        network = ResidualNetwork(block_after=block_after, pooled=pooled)
        for parameter in network.parameters():
            nn.init.uniform_(parameter, -0.2, 0.2)
    return network
