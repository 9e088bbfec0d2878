"""The device that confirmation runs on."""

from __future__ import annotations

import torch

from leakaudit.errors import UsageError


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA where there is one.

    Raises:
        UsageError: CUDA was asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        built = "no GPU is visible" if torch.version.cuda else "this torch is built without CUDA"
        raise UsageError(f"--device cuda: {built}; use --device cpu or auto")
    return torch.device(name)
