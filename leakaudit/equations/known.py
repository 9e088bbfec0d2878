"""What is known of a tensor, and how well."""

from __future__ import annotations

from dataclasses import dataclass

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
