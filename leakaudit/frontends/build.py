"""What the readers of ONNX and of ATen share when they turn a call into operators of the graph.

Both meet the same questions: why a call is not understood, which axis a number means, what a
stored mask selects, which equation an einsum states. Each has one answer here, and one limit.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MAX_MASK_ELEMENTS = 2**24  # 4096 tokens that attend to as many
MAX_INDICES = 2**20  # of one selection; they stand in the operator itself


class NotUnderstoodError(Exception):
    """A call that no builder can express; the text is the reason that the user reads."""


def axis_of(value: int, rank: int) -> int:
    """An axis counted from either end, as one counted from the front.

    Raises:
        NotUnderstoodError: There is no such axis.
    """
    if not -rank <= value < rank:
        raise NotUnderstoodError(f"its input has no axis {value}")
    return value % rank


def selected(mask: npt.NDArray[np.bool_], shape: Sequence[int]) -> int:
    """How many elements of a result a boolean mask selects that is broadcast to its shape."""
    # Broadcasting repeats every element equally often.
    return int(mask.sum()) * (math.prod(shape) // max(mask.size, 1))


def whole_side(
    kept: npt.NDArray[np.bool_], sides: Sequence[Sequence[int] | None], shape: Sequence[int]
) -> int | None:
    """Which side of a choice by a stored mask is the whole result.

    Args:
        kept: Where the first side is chosen; elsewhere it is the second.
        sides: Shapes of the two sides; None for one that is no activation.
        shape: Shape of the result.

    Returns:
        0, 1, or None where both are chosen from, or one is broadcast.
    """
    for index, whole in enumerate((kept.all(), not kept.any())):
        if whole and sides[index] == shape:
            return index
    return None


def indices_within(index: npt.NDArray[np.integer], size: int) -> tuple[int, ...]:
    """Indices counted from either end of an axis, in row-major order and counted from the front.

    Raises:
        NotUnderstoodError: One lies outside, or they are too many.
    """
    if index.size > MAX_INDICES:
        raise NotUnderstoodError("its indices are too many")
    if index.size and not (-size <= index.min() and index.max() < size):
        raise NotUnderstoodError("one of its indices lies outside its input")
    found: list[int] = (index.astype(np.int64) % max(size, 1)).reshape(-1).tolist()
    return tuple(found)


def explicit_equation(equation: str, ranks: Sequence[int]) -> str:
    """The equation with its output written out and letters in place of an ellipsis."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    counts = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=False)]
    letters = "".join(sorted(set(string.ascii_letters) - set(equation)))
    most = max((c for c, term in zip(counts, terms, strict=False) if "..." in term), default=0)
    wrong = any(c < 0 or (c and "..." not in t) for c, t in zip(counts, terms, strict=False))
    if len(terms) != len(ranks) or wrong or most > len(letters):
        raise NotUnderstoodError("its equation does not fit its inputs")
    if not arrow:
        once = sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1)
        right = ("..." if "..." in left else "") + "".join(once)
    shared = letters[:most]
    filled = [
        term.replace("...", shared[most - count :])
        for term, count in zip(terms, counts, strict=True)
    ]
    result = f"{','.join(filled)}->{right.replace('...', shared)}"
    if not set(result) <= set(string.ascii_letters + ",->"):
        raise NotUnderstoodError("its equation is not one of letters")
    return result


def lost_elements(*factors: npt.NDArray[np.generic] | None, shape: Sequence[int]) -> int:
    """How many elements of a product the zeros of its stored factors lose."""
    known = (factor for factor in factors if factor is not None)
    return max((selected(factor == 0, shape) for factor in known), default=0)
