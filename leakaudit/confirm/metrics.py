"""How close a reconstruction is: MSE, PSNR, SSIM."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def mse(got: Tensor, truth: Tensor) -> float:
    """Mean squared error; infinite where `got` is not finite."""
    error = (got.double() - truth.double()).square().mean()
    return float(error) if bool(torch.isfinite(error)) else math.inf


def psnr(error: float) -> float:
    """10·log10(1/MSE) in dB, for data in [0, 1]."""
    if error == 0:
        return math.inf
    return -10 * math.log10(error) if math.isfinite(error) else -math.inf


def ssim(got: Tensor, truth: Tensor) -> float:
    """Structural similarity, mean over channels (Wang et al. 2004: Gaussian window 11, σ 1.5).

    Args:
        got: (B, N, H, W) in [0, 1]; smaller images use the largest odd window that fits.
        truth: The same shape.
    """
    size = min(11, *truth.shape[-2:])
    size -= 1 - size % 2
    at = torch.arange(size, dtype=torch.float64, device=truth.device) - size // 2
    window = torch.exp(-(at**2) / (2 * 1.5**2))
    window = window / window.sum()
    kernel = (window[:, None] * window[None, :])[None, None]

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(image.reshape(-1, 1, *image.shape[-2:]), kernel)

    a, b = got.double(), truth.double()
    mean_a, mean_b = blur(a), blur(b)
    var_a = blur(a * a) - mean_a**2
    var_b = blur(b * b) - mean_b**2
    cov = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    score = ((2 * mean_a * mean_b + c1) * (2 * cov + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    value = float(score.mean())
    return value if math.isfinite(value) else 0.0
