"""Stored masks: which elements of a result they select."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def selected(mask: np.ndarray, shape: Sequence[int]) -> int:
    """How many elements of a result a boolean mask selects that is broadcast to its shape."""
    # Broadcasting repeats every element equally often.
    return int(mask.sum()) * (math.prod(shape) // max(mask.size, 1))
