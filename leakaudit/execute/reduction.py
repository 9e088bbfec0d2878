"""Sums, means, extremes and norms over some axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from leakaudit.execute.interface import Call, Executors, NotExecutable, Outputs
from leakaudit.operators import Reduce


def reduce(op: Reduce, call: Call) -> Outputs:
    """Reduce over the axes, or elementwise (over single elements) where there are none.

    Raises:
        NotExecutable: The function has no entry in `REDUCTIONS`.
    """
    function = REDUCTIONS.get(op.function)
    if function is None:
        raise NotExecutable(f"{call.name} (reduction {op.function})")
    x = call.x[0]
    kept = [axis for axis in range(x.dim()) if axis not in op.axes]
    sizes = [x.shape[axis] for axis in kept]
    count = math.prod(x.shape[axis] for axis in op.axes)
    y = function(x.permute(*kept, *sorted(op.axes)).reshape(*sizes, count))
    if op.keepdims:
        y = y.reshape([1 if axis in op.axes else size for axis, size in enumerate(x.shape)])
    return (y,)


# Over the last axis. Sums and products stay in the dtype; torch would widen small integers.
REDUCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum(-1, dtype=x.dtype),
    "mean": lambda x: x.mean(-1),
    "max": lambda x: x.amax(-1),
    "min": lambda x: x.amin(-1),
    "prod": lambda x: x.prod(-1, dtype=x.dtype),
    "l1": lambda x: torch.linalg.vector_norm(x, 1, -1),
    "l2": lambda x: torch.linalg.vector_norm(x, 2, -1),
    "log_sum_exp": lambda x: x.logsumexp(-1),
}


EXECUTORS: Executors = {Reduce: reduce}
