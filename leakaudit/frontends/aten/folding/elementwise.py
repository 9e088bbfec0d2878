"""Elementwise functions of constants, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from leakaudit.frontends.aten.call import Call
from leakaudit.frontends.aten.values import Array
from leakaudit.frontends.build import NotUnderstoodError

Fold = Callable[[Call], Array]


def operand(call: Call, name: str) -> Array:
    """An argument that is a plain number or a constant.

    Plain numbers take the type of the constant beside them in numpy, as they do in torch.
    """
    value = call.arguments.get(name)
    if isinstance(value, int | float):
        # A plain number stands for an array of one everywhere this goes.
        return value  # type: ignore[return-value]
    return call.numbers(name)


def _same_size(call: Call, *shapes: tuple[int, ...]) -> None:
    """Refuse before computing what would broadcast to more than the file states."""
    if np.broadcast_shapes(*shapes) != call.outputs[0].shape:
        raise NotUnderstoodError("its output has another shape than the file states")


def _apply(function: Callable[..., Array], *names: str) -> Fold:
    """An elementwise function of these arguments."""

    def folded(call: Call) -> Array:
        operands = [operand(call, name) for name in names]
        _same_size(call, *(np.shape(operand) for operand in operands))
        return function(*operands)

    return folded


def _scaled_sum(sign: int) -> Fold:
    def folded(call: Call) -> Array:
        x, y = operand(call, "self"), operand(call, "other")
        _same_size(call, np.shape(x), np.shape(y))
        alpha = call.arguments.get("alpha", 1)
        return np.asarray(x + (y if alpha == 1 else y * call.number("alpha", 1)) * sign)

    return folded


def _quotient(call: Call) -> Array:
    x, y = operand(call, "self"), operand(call, "other")
    _same_size(call, np.shape(x), np.shape(y))
    mode = call.arguments.get("rounding_mode")
    if mode == "floor":
        return np.floor_divide(x, y)
    found = np.true_divide(x, y)
    return np.trunc(found) if mode == "trunc" else found


def _clamped(low: str, high: str) -> Fold:
    def folded(call: Call) -> Array:
        bounds = [
            None if call.arguments.get(name) is None else operand(call, name)
            for name in (low, high)
        ]
        source = call.numbers("self")
        _same_size(call, source.shape, *(np.shape(bound) for bound in bounds if bound is not None))
        found: Array = np.clip(source, bounds[0], bounds[1])
        return found

    return folded


def _where_masked(source: Array, mask: Array, value: Array) -> Array:
    return np.where(mask, np.asarray(value).astype(np.asarray(source).dtype), source)


def _logical(function: Callable[..., Array]) -> Callable[..., Array]:
    return lambda *operands: function(*(np.asarray(operand).astype(bool) for operand in operands))


_UNARY: Mapping[str, Callable[..., Array]] = {
    **{name: getattr(np, name) for name in ("abs", "ceil", "cos", "exp", "exp2", "floor", "log")},
    **{name: getattr(np, name) for name in ("log2", "log10", "sin", "sqrt", "square", "sign")},
    **{"neg": np.negative, "tanh": np.tanh, "tan": np.tan, "round": np.round},
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "logical_not": _logical(np.logical_not),
    "bitwise_not": np.invert,
    "isinf": np.isinf,
    "isnan": np.isnan,
}
_BINARY: Mapping[str, Callable[..., Array]] = {
    **{"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal},
    **{"gt": np.greater, "ge": np.greater_equal, "mul": np.multiply, "multiply": np.multiply},
    **{"floor_divide": np.floor_divide, "remainder": np.remainder, "fmod": np.fmod},
    **{"maximum": np.maximum, "minimum": np.minimum, "bitwise_and": np.bitwise_and},
    **{"bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor},
    "__and__": np.bitwise_and,
    "__or__": np.bitwise_or,
    **{
        f"logical_{name}": _logical(getattr(np, f"logical_{name}")) for name in ("and", "or", "xor")
    },
}

FOLDS: Mapping[str, Fold] = {
    **{f"aten.{name}.default": _apply(function, "self") for name, function in _UNARY.items()},
    **{
        f"aten.{name}.{variant}": _apply(function, "self", "other")
        for name, function in _BINARY.items()
        for variant in ("Tensor", "Scalar", "default")
    },
    "aten.max.other": _apply(np.maximum, "self", "other"),
    "aten.min.other": _apply(np.minimum, "self", "other"),
    **dict.fromkeys(("aten.add.Tensor", "aten.add.Scalar"), _scaled_sum(1)),
    **dict.fromkeys(("aten.sub.Tensor", "aten.sub.Scalar"), _scaled_sum(-1)),
    **dict.fromkeys(
        ("aten.rsub.Tensor", "aten.rsub.Scalar"), _apply(lambda x, y: y - x, "self", "other")
    ),
    **{
        f"aten.{name}.{variant}": _quotient
        for name in ("div", "divide", "true_divide")
        for variant in ("Tensor", "Scalar", "Tensor_mode", "Scalar_mode")
    },
    **{
        f"aten.pow.{variant}": _apply(np.power, "self", "exponent")
        for variant in ("Tensor_Scalar", "Tensor_Tensor", "Scalar")
    },
    **dict.fromkeys(("aten.clamp.default", "aten.clamp.Tensor"), _clamped("min", "max")),
    "aten.clamp_min.default": _clamped("min", ""),
    "aten.clamp_max.default": _clamped("", "max"),
    **dict.fromkeys(
        ("aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther", "aten.where.Scalar"),
        _apply(np.where, "condition", "self", "other"),
    ),
    **dict.fromkeys(
        ("aten.masked_fill.Scalar", "aten.masked_fill.Tensor"),
        _apply(_where_masked, "self", "mask", "value"),
    ),
}
