"""Elementwise functions of constants, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from leakaudit.frontends.aten.call import Call, by_target
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


def _fitting(call: Call, *operands: Array) -> tuple[Array, ...]:
    """The operands; refused before computing where they broadcast to more than is stated."""
    if np.broadcast_shapes(*map(np.shape, operands)) != call.outputs[0].shape:
        raise NotUnderstoodError("its output has another shape than the file states")
    return operands


def _apply(call: Call, function: Callable[..., Array], names: Sequence[str]) -> Array:
    """An elementwise function of these arguments."""
    return function(*_fitting(call, *(operand(call, name) for name in names)))


def _scaled_sum(call: Call, sign: int) -> Array:
    x, y = _fitting(call, operand(call, "self"), operand(call, "other"))
    alpha = call.arguments.get("alpha", 1)
    return np.asarray(x + (y if alpha == 1 else y * call.number("alpha", 1)) * sign)


def _quotient(call: Call) -> Array:
    x, y = _fitting(call, operand(call, "self"), operand(call, "other"))
    mode = call.arguments.get("rounding_mode")
    if mode == "floor":
        return np.floor_divide(x, y)
    found = np.true_divide(x, y)
    return np.trunc(found) if mode == "trunc" else found


def _clamped(call: Call, bounds: Sequence[str]) -> Array:
    low, high = (
        None if call.arguments.get(name) is None else operand(call, name) for name in bounds
    )
    source = call.numbers("self")
    _fitting(call, source, *(bound for bound in (low, high) if bound is not None))
    found: Array = np.clip(source, low, high)
    return found


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

FOLDS: dict[str, Fold] = by_target(
    {
        **{name: partial(_apply, function=done, names=["self"]) for name, done in _UNARY.items()},
        **{
            f"{name} {name}.Tensor {name}.Scalar": partial(
                _apply, function=function, names=["self", "other"]
            )
            for name, function in _BINARY.items()
        },
        "max.other": partial(_apply, function=np.maximum, names=["self", "other"]),
        "min.other": partial(_apply, function=np.minimum, names=["self", "other"]),
        "add.Tensor add.Scalar": partial(_scaled_sum, sign=1),
        "sub.Tensor sub.Scalar": partial(_scaled_sum, sign=-1),
        "rsub.Tensor rsub.Scalar": partial(
            _apply, function=lambda x, y: y - x, names=["self", "other"]
        ),
        **{
            f"{name}.Tensor {name}.Scalar {name}.Tensor_mode {name}.Scalar_mode": _quotient
            for name in ("div", "divide", "true_divide")
        },
        "pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar": partial(
            _apply, function=np.power, names=["self", "exponent"]
        ),
        "clamp clamp.Tensor": partial(_clamped, bounds=["min", "max"]),
        "clamp_min": partial(_clamped, bounds=["min", ""]),
        "clamp_max": partial(_clamped, bounds=["", "max"]),
        "where.self where.ScalarSelf where.ScalarOther where.Scalar": partial(
            _apply, function=np.where, names=["condition", "self", "other"]
        ),
        "masked_fill.Scalar masked_fill.Tensor": partial(
            _apply, function=_where_masked, names=["self", "mask", "value"]
        ),
    }
)
