"""Inputs to test a reconstruction on: images made here, and the user's own picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from leakaudit.errors import AuditError, UsageError


@dataclass(frozen=True, slots=True)
class Probe:
    """One input: float64 `values` of the graph input's shape, in [0, 1] where it is an image."""

    name: str
    values: Tensor
    is_image: bool


def is_image_shape(shape: tuple[int, ...]) -> bool:
    """Whether an input (B, N, H, W) can be looked at: 1 or 3 channels, at least 8 x 8."""
    return len(shape) == 4 and shape[1] in (1, 3) and min(shape[2:]) >= 8


def make_probe(shape: tuple[int, ...], seed: int) -> Probe:
    """A procedural probe.

    Images have the two statistics of photographs that matter here: a power spectrum falling as
    1/f² (Field 1987), shared by the colour channels for the most part, and sharp occluding edges
    ("dead leaves"). Other inputs are uniform in [0, 1].

    Args:
        shape: Of the graph input.
        seed: The same seed gives the same probe on every machine.
    """
    generator = torch.Generator().manual_seed(seed)
    if not is_image_shape(shape):
        values = torch.rand(shape, generator=generator, dtype=torch.float64)
        return Probe("uniform noise", values, False)
    batch, channels, height, width = shape
    images = [_image(channels, height, width, generator) for _ in range(batch)]
    return Probe("synthetic image", torch.stack(images), True)


def _image(channels: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    fy = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    fx = torch.fft.rfftfreq(width, dtype=torch.float64)[None, :]
    amplitude = 1 / torch.sqrt(fx**2 + fy**2).clamp_min(1 / max(height, width))

    def field() -> Tensor:
        noise = torch.randn((height, width), generator=generator, dtype=torch.float64)
        cloud: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=(height, width))
        centred: Tensor = (cloud - cloud.mean()) / cloud.std()
        return centred

    luminance = field()
    image = torch.stack([luminance + 0.35 * field() for _ in range(channels)])
    y = torch.arange(height, dtype=torch.float64)[:, None] / height
    x = torch.arange(width, dtype=torch.float64)[None, :] / width
    for _ in range(12):
        cy, cx, size, shade = torch.rand(4, generator=generator, dtype=torch.float64)
        tint = torch.randn((channels, 1, 1), generator=generator, dtype=torch.float64)
        leaf = (y - cy) ** 2 + (x - cx) ** 2 < (0.06 + 0.16 * size) ** 2
        image = torch.where(leaf, 0.4 * image + 2.4 * shade - 1.2 + 0.4 * tint, image)
    low, high = image.min(), image.max()
    scaled: Tensor = 0.02 + 0.96 * (image - low) / (high - low)
    return scaled


def load_probe(path: Path, shape: tuple[int, ...]) -> Probe:
    """The user's picture, resized to the graph's input, in [0, 1].

    Raises:
        UsageError: The input is not an image.
        AuditError: The file cannot be read as a picture.
    """
    from PIL import Image

    if not is_image_shape(shape):
        raise UsageError(
            f"--probe {path}: the model's input {'x'.join(map(str, shape))} is not an image "
            "of 1 or 3 channels; leave --probe out"
        )
    try:
        with Image.open(path) as picture:
            resized = picture.convert("RGB" if shape[1] == 3 else "L").resize(
                (shape[3], shape[2]), Image.Resampling.BICUBIC
            )
    except FileNotFoundError as error:
        raise AuditError(str(path), "there is no such picture", "check the path") from error
    # Pillow's readers raise ValueError and SyntaxError for some broken files.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise AuditError(
            str(path), "it cannot be read as a picture", "give a PNG or JPEG file"
        ) from error
    data = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
    values = data.reshape(shape[2], shape[3], shape[1]).permute(2, 0, 1).double() / 255
    return Probe(f"picture {path.name}", values[None].expand(shape).contiguous(), True)
