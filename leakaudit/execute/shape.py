"""Operators that keep every element and give it another place."""

from __future__ import annotations

import torch

from leakaudit import operators as ops
from leakaudit.execute.interface import Executors

EXECUTORS: Executors = {
    ops.Reshape: lambda _op, call: (call.x[0].reshape(call.shape),),
    ops.Transpose: lambda op, call: (call.x[0].permute(op.permutation),),
    ops.Expand: lambda _op, call: (call.x[0].expand(call.shape),),
    ops.Concat: lambda op, call: (torch.cat(list(call.x), op.axis),),
    ops.Split: lambda op, call: tuple(torch.functional.split(call.x[0], list(op.sizes), op.axis)),
}
