"""Arithmetic between activations, parameters, constants and plain numbers."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Call, Layer, affine, by_target, same
from leakaudit.frontends.aten.operators.activation import element, gate
from leakaudit.frontends.aten.operators.selection import part
from leakaudit.frontends.aten.values import Stored, number_of, numpy_dtype
from leakaudit.frontends.build import NotUnderstoodError, lost_elements
from leakaudit.graph import Tensor


def difference(x: Tensor, y: Tensor) -> Layer:
    """x - y."""
    return Layer(ops.Sub(), (x.name, y.name))


def add(x: Tensor, y: Tensor) -> Layer:
    """x + y."""
    return Layer(ops.Add(), (x.name, y.name))


def _operand(call: Call, name: str) -> Tensor:
    """The argument as a node reads it, a constant in the precision of the result."""
    found = call.operand(name)
    if found.dtype == call.output.dtype:
        return found
    numbers = call.numbers_or_none(name)
    if numbers is None:
        return found
    return call.sink.constant(numbers.astype(numpy_dtype(call.output.dtype))).operand


def _single(call: Call, name: str, other: str) -> float | None:
    """The argument as a plain number, where it is one or a constant of one element."""
    value = call.arguments.get(name)
    number = number_of(value)
    if number is not None or not isinstance(value, Stored) or math.prod(value.shape) != 1:
        return number
    numbers = call.sink.numbers(value)
    if numbers is None or call.operand(other).shape != call.output.shape:
        return None
    return float(numbers.reshape(()))


def _sum(call: Call, sign: float, terms: tuple[str, str] = ("self", "other")) -> Layer:
    """first ± alpha · second."""
    call.floating()
    first, second = terms
    factor = sign * call.number("alpha", 1.0)
    offset = _single(call, second, first)
    if offset is not None:
        return affine(call.operand(first), 1.0, factor * offset)
    start = _single(call, first, second)
    if start is not None:
        return affine(call.operand(second), factor, start)
    x, y = _operand(call, first), call.scaled(_operand(call, second), factor * sign)
    return add(x, y) if sign > 0 else difference(x, y)


def _product(call: Call) -> Layer:
    call.floating()
    for name, other in (("other", "self"), ("self", "other")):
        factor = _single(call, name, other)
        if factor is not None and math.isfinite(factor):
            return affine(call.operand(other), factor)
    factors = (call.numbers_or_none(name) for name in ("self", "other"))
    zeros = lost_elements(*factors, shape=call.output.shape)
    return Layer(ops.Mul(zeros), (_operand(call, "self").name, _operand(call, "other").name))


def _quotient(call: Call) -> Layer:
    call.floating()
    if call.arguments.get("rounding_mode") is not None:
        raise NotUnderstoodError("it rounds its quotient")
    divisor = _single(call, "other", "self")
    if divisor:
        return affine(call.operand("self"), 1 / divisor)
    start = _single(call, "self", "other")
    if start is None:
        return Layer(ops.Div(), (_operand(call, "self").name, _operand(call, "other").name))
    source = call.operand("other")
    if start == 1:
        return element(source, "reciprocal")
    inverse = call.computed(element(source, "reciprocal"), source.shape)
    return affine(inverse, start)


_POWERS = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}


def _power(call: Call) -> Layer:
    dtype = call.floating()
    exponent = _single(call, "exponent", "self")
    if exponent == 1:
        return same(call.operand("self"))
    if exponent is not None and exponent in _POWERS:
        return element(call.operand("self"), _POWERS[exponent])
    names: list[str] = []
    for name in ("self", "exponent"):
        number = number_of(call.arguments.get(name))
        if number is None:
            names.append(_operand(call, name).name)
        else:
            names.append(call.sink.constant(np.asarray(number, numpy_dtype(dtype))).operand.name)
    return Layer(ops.Pow(), tuple(names))


def _negation(call: Call) -> Layer:
    call.floating()
    return affine(call.operand("self"), -1.0)


def _fused(call: Call, op: ops.Operator) -> Layer:
    """addcmul and addcdiv: self + value · op(tensor1, tensor2)."""
    call.floating()
    x, y = call.operand("tensor1"), call.operand("tensor2")
    inner = call.computed(Layer(op, (x.name, y.name)), np.broadcast_shapes(x.shape, y.shape))
    return add(call.operand("self"), call.scaled(inner, call.number("value", 1.0)))


def _glu(call: Call) -> Layer:
    source = call.source()
    axis = call.axis("dim", len(source.shape), -1)
    half, odd = divmod(source.shape[axis], 2)
    if odd:
        raise NotUnderstoodError("its axis cannot be halved")
    shape = (*source.shape[:axis], half, *source.shape[axis + 1 :])
    value = part(call, source, axis, range(half))
    second = part(call, source, axis, range(half, 2 * half))
    opened = call.computed(gate(second), shape)
    return Layer(ops.Mul(), (value.name, opened.name))


BUILDERS = by_target(
    {
        "add.Tensor add.Scalar": partial(_sum, sign=1.0),
        "sub.Tensor sub.Scalar subtract.Tensor subtract.Scalar": partial(_sum, sign=-1.0),
        "rsub.Tensor rsub.Scalar": partial(_sum, sign=-1.0, terms=("other", "self")),
        "mul.Tensor mul.Scalar multiply.Tensor multiply.Scalar": _product,
        "div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode": _quotient,
        "divide.Tensor divide.Scalar true_divide.Tensor true_divide.Scalar": _quotient,
        "pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar": _power,
        "neg negative": _negation,
        "addcmul": partial(_fused, op=ops.Mul()),
        "addcdiv": partial(_fused, op=ops.Div()),
        "glu": _glu,
    }
)
