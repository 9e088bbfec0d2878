"""Arithmetic between tensors, parameters and constants, with broadcasting."""

from __future__ import annotations

import torch

from leakaudit import operators as ops
from leakaudit.execute.interface import Call, Executors, Outputs, of_inputs


def scale(op: ops.Scale, call: Call) -> Outputs:
    """factor · x + offset; integers stay integers where both numbers are whole."""
    factor, offset = op.factor, op.offset
    whole = float(factor).is_integer() and float(offset).is_integer()
    if whole and not call.x[0].is_floating_point():
        return (call.x[0] * int(factor) + int(offset),)
    return (call.x[0] * factor + offset,)


EXECUTORS: Executors = {
    ops.Add: of_inputs(torch.add),
    ops.Sub: of_inputs(torch.sub),
    ops.Mul: of_inputs(torch.mul),
    ops.Div: of_inputs(torch.div),
    ops.Pow: of_inputs(torch.pow),
    ops.Scale: scale,
}
