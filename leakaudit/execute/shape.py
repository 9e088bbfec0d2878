"""Operators that keep every element and give it another place."""

from __future__ import annotations

import torch

from leakaudit.execute.interface import Call, Executors, Outputs
from leakaudit.operators import Concat, Expand, Reshape, Split, Transpose


def reshape(op: Reshape, call: Call) -> Outputs:
    """The same elements under the stated shape."""
    return (call.x[0].reshape(call.shape),)


def transpose(op: Transpose, call: Call) -> Outputs:
    """The axes in another order."""
    return (call.x[0].permute(op.permutation),)


def expand(op: Expand, call: Call) -> Outputs:
    """Broadcast to the stated shape."""
    return (call.x[0].expand(call.shape),)


def concat(op: Concat, call: Call) -> Outputs:
    """One after the other."""
    return (torch.cat(list(call.x), op.axis),)


def split(op: Split, call: Call) -> Outputs:
    """Consecutive parts."""
    return tuple(torch.functional.split(call.x[0], list(op.sizes), op.axis))


EXECUTORS: Executors = {
    Reshape: reshape,
    Transpose: transpose,
    Expand: expand,
    Concat: concat,
    Split: split,
}
