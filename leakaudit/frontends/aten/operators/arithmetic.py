"""Arithmetic between activations, parameters, constants and plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Builder, Call, Layer, affine, same
from leakaudit.frontends.aten.operators.activation import element, gate
from leakaudit.frontends.aten.operators.selection import part
from leakaudit.frontends.aten.values import Stored, number_of, numpy_dtype
from leakaudit.frontends.build import NotUnderstoodError, lost_elements
from leakaudit.graph import Tensor


def difference(x: Tensor, y: Tensor) -> Layer:
    """x - y."""
    return Layer(ops.Sub(), (x.name, y.name))


def add(call: Call, x: Tensor, y: Tensor) -> Layer:
    """x + y as the result of the call."""
    return Layer(ops.Add(), (x.name, y.name), outputs=(call.output,))


def _operand(call: Call, name: str) -> Tensor:
    """The argument as a node reads it, a constant in the precision of the result."""
    value = call.arguments.get(name)
    found = call.operand(name)
    if found.dtype == call.output.dtype or not isinstance(value, Stored):
        return found
    numbers = call.sink.numbers(value)
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


def _sum(sign: float) -> Builder:
    """self ± alpha · other."""

    def builder(call: Call) -> Layer:
        call.floating()
        alpha = call.number("alpha", 1.0)
        offset = _single(call, "other", "self")
        if offset is not None:
            return affine(call.operand("self"), 1.0, sign * alpha * offset)
        start = _single(call, "self", "other")
        if start is not None:
            return affine(call.operand("other"), sign * alpha, start)
        x, y = _operand(call, "self"), call.scaled(_operand(call, "other"), alpha)
        return Layer(ops.Add() if sign > 0 else ops.Sub(), (x.name, y.name))

    return builder


def _reverse_difference(call: Call) -> Layer:
    """other - alpha · self."""
    call.floating()
    alpha = call.number("alpha", 1.0)
    start = _single(call, "other", "self")
    if start is not None:
        return affine(call.operand("self"), -alpha, start)
    x, y = _operand(call, "other"), call.scaled(_operand(call, "self"), alpha)
    return Layer(ops.Sub(), (x.name, y.name))


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


def _fused(op: ops.Operator, pair: tuple[str, str]) -> Builder:
    """addcmul and addcdiv: self + value · op(tensor1, tensor2)."""

    def builder(call: Call) -> Layer:
        call.floating()
        x, y = (call.operand(name) for name in pair)
        inner = call.emit(op, (x, y), np.broadcast_shapes(x.shape, y.shape))
        return add(call, call.operand("self"), call.scaled(inner, call.number("value", 1.0)))

    return builder


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


BUILDERS: Mapping[str, Builder] = {
    **dict.fromkeys(("aten.add.Tensor", "aten.add.Scalar"), _sum(1.0)),
    **dict.fromkeys(
        ("aten.sub.Tensor", "aten.sub.Scalar", "aten.subtract.Tensor", "aten.subtract.Scalar"),
        _sum(-1.0),
    ),
    **dict.fromkeys(("aten.rsub.Tensor", "aten.rsub.Scalar"), _reverse_difference),
    **dict.fromkeys(
        ("aten.mul.Tensor", "aten.mul.Scalar", "aten.multiply.Tensor", "aten.multiply.Scalar"),
        _product,
    ),
    **dict.fromkeys(
        (
            *("aten.div.Tensor", "aten.div.Scalar", "aten.div.Tensor_mode", "aten.div.Scalar_mode"),
            *("aten.divide.Tensor", "aten.divide.Scalar"),
            *("aten.true_divide.Tensor", "aten.true_divide.Scalar"),
        ),
        _quotient,
    ),
    **dict.fromkeys(
        ("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.pow.Scalar"), _power
    ),
    **dict.fromkeys(("aten.neg.default", "aten.negative.default"), _negation),
    "aten.addcmul.default": _fused(ops.Mul(), ("tensor1", "tensor2")),
    "aten.addcdiv.default": _fused(ops.Div(), ("tensor1", "tensor2")),
    "aten.glu.default": _glu,
}
