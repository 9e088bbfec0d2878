"""What is known of a tensor, and how well."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Known:
    """A known number of a tensor.

    Attributes:
        tensor: float64, of the tensor's shape.
        mask: Where it is known; None: everywhere.
        error: Estimate of the largest absolute error, from above.
    """

    tensor: Tensor
    mask: Tensor | None = None
    error: float = 0.0

    @property
    def where(self) -> Tensor:
        """Where it is known, everywhere if need be."""
        return torch.ones_like(self.tensor, dtype=torch.bool) if self.mask is None else self.mask
