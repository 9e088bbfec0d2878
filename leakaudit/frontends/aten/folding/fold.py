"""Numbers that follow from the file alone: shape arithmetic, masks, position indices.

Such calls are computed here, with numpy, and become constants of the graph. Their arguments come
from an untrusted file: sizes are compared with a limit before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from leakaudit.frontends.aten.call import Call
from leakaudit.frontends.aten.folding import arrays, elementwise
from leakaudit.frontends.aten.folding.elementwise import operand
from leakaudit.frontends.aten.values import Array, numpy_dtype
from leakaudit.frontends.build import MAX_MASK_ELEMENTS, NotUnderstoodError

Fold = Callable[[Call], Array | tuple[Array, ...]]

FOLDS: Mapping[str, Fold] = {**elementwise.FOLDS, **arrays.FOLDS}

_NOT_COMPUTABLE = (ArithmeticError, ValueError, TypeError, IndexError, NotUnderstoodError)


def fold(call: Call) -> tuple[Array, ...] | None:
    """The outputs of a call that reads constants only, or None where they cannot be computed.

    Views share memory with what they are views of, as in torch: see `write`.
    """
    function = FOLDS.get(call.target)
    sizes = [math.prod(output.shape) for output in call.outputs]
    if function is None or max(sizes, default=0) > MAX_MASK_ELEMENTS:
        return None
    if not call.sink.affordable(sum(sizes)):
        return None
    try:
        with np.errstate(all="ignore"):
            found = function(call)
            results = found if isinstance(found, tuple) else (found,)
            if len(results) != len(call.outputs):
                return None
            return tuple(
                _fitted(array, numpy_dtype(output.dtype), output.shape)
                for array, output in zip(results, call.outputs, strict=True)
            )
    except _NOT_COMPUTABLE:
        return None


def write(call: Call) -> bool:
    """Perform a call that writes into a constant; False where it is not one, or not computable."""
    target = call.numbers_or_none("self")
    operation = call.target.partition(".")[2].partition("_.")[0]
    if target is None or not target.flags.writeable:
        return False
    try:
        with np.errstate(all="ignore"):
            if operation == "fill":
                content = operand(call, "value")
            elif operation == "copy":
                content = operand(call, "src")
            elif operation == "zero":
                content = np.zeros((), target.dtype)
            else:
                function = FOLDS.get(call.target.replace("_.", ".", 1))
                found = None if function is None else function(call)
                if not isinstance(found, np.ndarray | np.generic):
                    return False
                content = np.asarray(found)
            if np.broadcast_shapes(np.shape(content), target.shape) != target.shape:
                return False
            target[...] = content
    except _NOT_COMPUTABLE:
        return False
    return True


def _fitted(array: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    found = np.asarray(array)
    if found.shape != shape:
        raise NotUnderstoodError("its output has another shape than the file states")
    return found.astype(dtype, copy=False)
