"""The softmax of decomposed attention, which gives 0 where every key is hidden.

torch writes it as where(not any(not (x == -inf)), 0, softmax(x)). As long as every query sees a key
this is the softmax itself.
"""

from __future__ import annotations

import math

import numpy as np

from leakaudit.frontends.aten.call import Call, Layer, same
from leakaudit.frontends.aten.values import Stored
from leakaudit.graph import Tensor

_SOFTMAXES = ("aten._softmax.default", "aten.softmax.int")
_TESTS = ("aten.logical_not.default", "aten.any.dim", "aten.logical_not.default")


def safe_softmax(call: Call) -> Layer | None:
    """The softmax that this `where` guards, or None where it is anything else."""
    guarded, fallback = call.arguments.get("other"), call.arguments.get("self")
    softmax = _call(call, guarded)
    if not isinstance(guarded, Tensor) or softmax is None or softmax.target not in _SOFTMAXES:
        return None
    numbers = call.sink.numbers(fallback) if isinstance(fallback, Stored) else None
    if numbers is None or numbers.any():
        return None
    scores = softmax.arguments.get("self")
    test = _call(call, call.arguments.get("condition"))
    for target in _TESTS:
        if test is None or test.target != target:
            return None
        test = _call(call, test.arguments.get("self"))
    if test is None or test.target != "aten.eq.Scalar" or test.arguments.get("self") != scores:
        return None
    if test.arguments.get("other") != -math.inf or _hides_a_row(call, _call(call, scores)):
        return None
    return same(guarded)


def _call(call: Call, value: object) -> Call | None:
    return call.sink.call(value.name) if isinstance(value, Tensor) else None


def _hides_a_row(call: Call, scores: Call | None) -> bool:
    """Whether the scores are a sum with a constant mask that hides every key from a query."""
    if scores is None or scores.target != "aten.add.Tensor":
        return False
    for value in scores.arguments.values():
        mask = call.sink.numbers(value) if isinstance(value, Stored) else None
        if mask is not None and mask.ndim and np.isneginf(mask).all(axis=-1).any():
            return True
    return False
