"""MSE, PSNR and SSIM against slow independent implementations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from leakaudit.confirm.metrics import mse, psnr, ssim


def images(seed: int, *shape: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def slow_ssim(a: np.ndarray, b: np.ndarray, size: int = 11, sigma: float = 1.5) -> float:
    """Wang, Bovik, Sheikh, Simoncelli (2004), equation 13, window by window, data range 1."""
    offsets = np.arange(size) - (size - 1) / 2
    weight = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * sigma**2))
    weight /= weight.sum()
    scores = []
    flat_a, flat_b = (im.reshape(-1, *im.shape[-2:]) for im in (a, b))
    for image_a, image_b in zip(flat_a, flat_b, strict=True):
        for i in range(a.shape[-2] - size + 1):
            for j in range(a.shape[-1] - size + 1):
                p, q = (im[i : i + size, j : j + size] for im in (image_a, image_b))
                mean_p, mean_q = (weight * p).sum(), (weight * q).sum()
                var_p = (weight * (p - mean_p) ** 2).sum()
                var_q = (weight * (q - mean_q) ** 2).sum()
                cov = (weight * (p - mean_p) * (q - mean_q)).sum()
                scores.append(
                    (2 * mean_p * mean_q + 0.01**2)
                    * (2 * cov + 0.03**2)
                    / ((mean_p**2 + mean_q**2 + 0.01**2) * (var_p + var_q + 0.03**2))
                )
    return float(np.mean(scores))


@pytest.mark.parametrize("shape", [(1, 1, 13, 16), (2, 3, 12, 11)])
@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_ssim_is_that_of_the_paper(shape: tuple[int, ...], noise: float) -> None:
    a = images(0, *shape)
    b = (a + noise * (images(1, *shape) - 0.5)).clamp(0, 1)
    assert ssim(b, a) == pytest.approx(slow_ssim(b.numpy(), a.numpy()), abs=1e-10)
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12)


@pytest.mark.parametrize(("side", "window"), [(8, 7), (9, 9), (10, 9), (11, 11)])
def test_small_images_use_the_largest_odd_window_that_fits(side: int, window: int) -> None:
    a, b = images(0, 1, 1, side, side + 3), images(1, 1, 1, side, side + 3)
    assert ssim(a, b) == pytest.approx(slow_ssim(a.numpy(), b.numpy(), window), abs=1e-10)


def test_identical_images_are_identical() -> None:
    a = images(0, 1, 3, 16, 16)
    assert ssim(a, a.clone()) == pytest.approx(1.0, abs=1e-12)
    assert mse(a, a.clone()) == 0
    assert psnr(0.0) == math.inf


def test_ssim_of_constant_images_follows_from_the_luminance_term_alone() -> None:
    a, b = torch.full((1, 1, 12, 12), 0.2), torch.full((1, 1, 12, 12), 0.8)
    expected = (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-6)


def test_an_inverted_image_has_negative_structure() -> None:
    a = images(0, 1, 1, 24, 24)
    assert ssim(1 - a, a) < 0


def test_mse_and_psnr() -> None:
    a, b = images(0, 1, 3, 8, 9), images(1, 1, 3, 8, 9)
    assert mse(a, b) == pytest.approx(float(np.mean((a.numpy() - b.numpy()) ** 2)), rel=1e-12)
    assert psnr(0.01) == pytest.approx(20.0)
    assert psnr(1e-4) == pytest.approx(40.0)
    assert psnr(1.0) == pytest.approx(0.0)
    # On data in [0, 255] the same picture has 20·log10(255) dB more against the peak 1.
    assert psnr(0.01 * 255**2) == pytest.approx(20 - 48.1308, abs=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_infinitely_wrong(bad: float) -> None:
    a = images(0, 1, 1, 8, 8)
    b = a.clone()
    b[0, 0, 3, 3] = bad
    assert mse(b, a) == math.inf
    assert psnr(mse(b, a)) == -math.inf
    assert ssim(b, a) == 0.0


def test_the_error_is_computed_in_double_precision() -> None:
    a = torch.full((1000,), 0.1, dtype=torch.float32)
    truth = a.double() + 1e-9
    assert mse(a, truth) == pytest.approx(1e-18, rel=1e-6)
