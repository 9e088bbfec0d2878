"""Arithmetic between activations, parameters, constants and plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from leakaudit.frontends.aten.call import Call, Layer
from leakaudit.frontends.aten.safe_softmax import safe_softmax
from leakaudit.frontends.aten.values import (
    Array,
    NotUnderstoodError,
    Stored,
    Value,
    is_floating,
    numpy_dtype,
)
from leakaudit.frontends.masks import selected
from leakaudit.graph import Tensor
from leakaudit.operators import (
    Add,
    Div,
    Elementwise,
    Identity,
    Mul,
    Operator,
    Pow,
    Scale,
    Sub,
    Where,
)

Builder = Callable[[Call], Layer]

_MAX_MASK = 2**22


def scaled(call: Call, x: Tensor, factor: float) -> Tensor:
    """factor · x, which is x itself for 1."""
    return x if factor == 1 else call.emit(Scale(factor), (x,), x.shape)


def add(call: Call, x: Tensor, y: Tensor) -> Layer:
    """x + y as the result of the call."""
    return Layer(Add(), (x.name, y.name), outputs=(call.output,))


def _floating(call: Call) -> str:
    dtype = call.output.dtype
    if not is_floating(dtype):
        raise NotUnderstoodError(f"it computes with data of type {dtype}")
    return dtype


def _number(value: Value) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


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
    number = _number(value)
    if number is not None or not isinstance(value, Stored) or math.prod(value.shape) != 1:
        return number
    numbers = call.sink.numbers(value)
    if numbers is None or call.operand(other).shape != call.output.shape:
        return None
    return float(numbers.reshape(()))


def _sum(sign: float) -> Builder:
    """self ± alpha · other."""

    def builder(call: Call) -> Layer:
        _floating(call)
        alpha = call.number("alpha", 1.0)
        offset = _single(call, "other", "self")
        if offset is not None:
            return Layer(Scale(1.0, sign * alpha * offset), (call.operand("self").name,))
        start = _single(call, "self", "other")
        if start is not None:
            return Layer(Scale(sign * alpha, start), (call.operand("other").name,))
        x, y = _operand(call, "self"), scaled(call, _operand(call, "other"), alpha)
        return Layer(Add() if sign > 0 else Sub(), (x.name, y.name))

    return builder


def _reverse_difference(call: Call) -> Layer:
    """other - alpha · self."""
    _floating(call)
    alpha = call.number("alpha", 1.0)
    start = _single(call, "other", "self")
    if start is not None:
        return Layer(Scale(-alpha, start), (call.operand("self").name,))
    x, y = _operand(call, "other"), scaled(call, _operand(call, "self"), alpha)
    return Layer(Sub(), (x.name, y.name))


def _product(call: Call) -> Layer:
    _floating(call)
    for name, other in (("other", "self"), ("self", "other")):
        factor = _single(call, name, other)
        if factor is not None and math.isfinite(factor):
            return Layer(Scale(factor), (call.operand(other).name,))
    zeros = max(_zeros(call, name) for name in ("self", "other"))
    return Layer(Mul(zeros), (_operand(call, "self").name, _operand(call, "other").name))


def _zeros(call: Call, name: str) -> int:
    """How many elements of the result an argument sets to 0, as far as its numbers are at hand."""
    value = call.arguments.get(name)
    numbers = call.sink.numbers(value) if isinstance(value, Stored) else None
    return 0 if numbers is None else selected(numbers == 0, call.output.shape)


def _quotient(call: Call) -> Layer:
    _floating(call)
    if call.arguments.get("rounding_mode") is not None:
        raise NotUnderstoodError("it rounds its quotient")
    divisor = _single(call, "other", "self")
    if divisor:
        return Layer(Scale(1 / divisor), (call.operand("self").name,))
    start = _single(call, "self", "other")
    if start is None:
        return Layer(Div(), (_operand(call, "self").name, _operand(call, "other").name))
    source = call.operand("other")
    if start == 1:
        return Layer(Elementwise("reciprocal"), (source.name,))
    inverse = call.emit(Elementwise("reciprocal"), (source,), source.shape)
    return Layer(Scale(start), (inverse.name,))


_POWERS: Mapping[float, Operator] = {
    1.0: Identity(),
    2.0: Elementwise("square"),
    0.5: Elementwise("sqrt"),
    -0.5: Elementwise("rsqrt"),
    -1.0: Elementwise("reciprocal"),
}


def _power(call: Call) -> Layer:
    dtype = _floating(call)
    exponent = _single(call, "exponent", "self")
    if exponent is not None and exponent in _POWERS:
        return Layer(_POWERS[exponent], (call.operand("self").name,))
    names: list[str] = []
    for name in ("self", "exponent"):
        number = _number(call.arguments.get(name))
        if number is None:
            names.append(_operand(call, name).name)
        else:
            names.append(call.sink.constant(np.asarray(number, numpy_dtype(dtype))).operand.name)
    return Layer(Pow(), tuple(names))


def _negation(call: Call) -> Layer:
    _floating(call)
    return Layer(Scale(-1.0), (call.operand("self").name,))


def _logarithm(base: float) -> Builder:
    def builder(call: Call) -> Layer:
        source = call.source()
        natural = call.emit(Elementwise("log"), (source,), source.shape)
        return Layer(Scale(1 / math.log(base)), (natural.name,))

    return builder


def _log1p(call: Call) -> Layer:
    source = call.source()
    shifted = call.emit(Scale(1.0, 1.0), (source,), source.shape)
    return Layer(Elementwise("log"), (shifted.name,))


def _expm1(call: Call) -> Layer:
    source = call.source()
    raised = call.emit(Elementwise("exp"), (source,), source.shape)
    return Layer(Scale(1.0, -1.0), (raised.name,))


def _power_of_two(call: Call) -> Layer:
    source = scaled(call, call.source(), math.log(2))
    return Layer(Elementwise("exp"), (source.name,))


def _fused(op: Operator, pair: tuple[str, str]) -> Builder:
    """addcmul and addcdiv: self + value · op(tensor1, tensor2)."""

    def builder(call: Call) -> Layer:
        _floating(call)
        x, y = (call.operand(name) for name in pair)
        inner = call.emit(op, (x, y), np.broadcast_shapes(x.shape, y.shape))
        return add(call, call.operand("self"), scaled(call, inner, call.number("value", 1.0)))

    return builder


def _mask(call: Call, name: str) -> Array:
    found = call.numbers(name)
    if found.dtype != np.bool_:
        raise NotUnderstoodError(f"its {name} is not boolean")
    return found


def _masked_fill(call: Call) -> Layer:
    value = call.arguments.get("value")
    number = _number(value)
    filling = np.asarray(number) if number is not None else call.numbers_of(value, "value")
    return _choose(call, ~_mask(call, "mask"), call.operand("self"), filling)


def _triangle(keep: Callable[..., Array]) -> Builder:
    """tril and triu of data: 0 beside a diagonal."""

    def builder(call: Call) -> Layer:
        source = call.operand("self")
        if len(source.shape) < 2 or math.prod(source.shape[-2:]) > _MAX_MASK:
            raise NotUnderstoodError("its input is not a matrix, or too large")
        kept = keep(np.ones(source.shape[-2:], np.bool_), call.integer("diagonal", 0))
        return _choose(call, kept, source, np.zeros(()))

    return builder


def _where(call: Call) -> Layer:
    if isinstance(call.arguments.get("condition"), Tensor):
        softmax = safe_softmax(call)
        if softmax is not None:
            return softmax
    condition = _mask(call, "condition")
    parts: list[Tensor | Array] = []
    for name in ("self", "other"):
        value = call.arguments.get(name)
        numbers = call.sink.numbers(value) if isinstance(value, Stored) else _number(value)
        parts.append(call.operand(name) if numbers is None else np.asarray(numbers))
    first, second = parts
    if isinstance(first, Tensor):
        return _choose(call, condition, first, second)
    if isinstance(second, Tensor):
        return _choose(call, ~condition, second, first)
    raise NotUnderstoodError("it chooses between constants too large to compute")


def _choose(call: Call, kept: Array, x: Tensor, other: Tensor | Array) -> Layer:
    """x where `kept`, else `other`; the whole of one of them is that one itself."""
    dtype = numpy_dtype(_floating(call))
    shape = call.output.shape
    if kept.all() and x.shape == shape:
        return Layer(Identity(), (x.name,))
    if isinstance(other, Tensor):
        if not kept.any() and other.shape == shape:
            return Layer(Identity(), (other.name,))
        rest = other.name
    else:
        rest = call.sink.constant(np.asarray(other, dtype)).operand.name
    condition = call.sink.constant(kept).operand.name
    return Layer(Where(selected(kept, shape)), (condition, x.name, rest))


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
    "aten.log2.default": _logarithm(2),
    "aten.log10.default": _logarithm(10),
    "aten.log1p.default": _log1p,
    "aten.expm1.default": _expm1,
    "aten.exp2.default": _power_of_two,
    "aten.addcmul.default": _fused(Mul(), ("tensor1", "tensor2")),
    "aten.addcdiv.default": _fused(Div(), ("tensor1", "tensor2")),
    "aten.tril.default": _triangle(np.tril),
    "aten.triu.default": _triangle(np.triu),
    "aten.masked_fill.Scalar": _masked_fill,
    "aten.masked_fill.Tensor": _masked_fill,
    "aten.where.self": _where,
    "aten.where.ScalarSelf": _where,
    "aten.where.ScalarOther": _where,
    "aten.where.Scalar": _where,
}
