"""Arithmetic between tensors, parameters and constants, with broadcasting."""

from __future__ import annotations

import torch

from leakaudit.execute.interface import Call, Executors, Outputs
from leakaudit.operators import Add, Div, Mul, Pow, Scale, Sub


def add(op: Add, call: Call) -> Outputs:
    """x + y."""
    return (call.x[0] + call.x[1],)


def subtract(op: Sub, call: Call) -> Outputs:
    """x - y."""
    return (call.x[0] - call.x[1],)


def multiply(op: Mul, call: Call) -> Outputs:
    """x · y."""
    return (call.x[0] * call.x[1],)


def divide(op: Div, call: Call) -> Outputs:
    """x / y."""
    return (call.x[0] / call.x[1],)


def power(op: Pow, call: Call) -> Outputs:
    """x to the power of y."""
    return (torch.pow(call.x[0], call.x[1]),)


def scale(op: Scale, call: Call) -> Outputs:
    """factor · x + offset; integers stay integers where both numbers are whole."""
    factor, offset = op.factor, op.offset
    whole = float(factor).is_integer() and float(offset).is_integer()
    if whole and not call.x[0].is_floating_point():
        return (call.x[0] * int(factor) + int(offset),)
    return (call.x[0] * factor + offset,)


EXECUTORS: Executors = {
    Add: add,
    Sub: subtract,
    Mul: multiply,
    Div: divide,
    Pow: power,
    Scale: scale,
}
