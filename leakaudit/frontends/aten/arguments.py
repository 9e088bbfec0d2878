"""The `Argument` records of an export graph -> values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from leakaudit.frontends.aten import shapes as pt2_shapes
from leakaudit.frontends.aten.schema import DTYPES, TENSOR_KINDS, field, tensor_names
from leakaudit.frontends.aten.values import Opaque, Value

_PLAIN_KINDS = (
    *("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools"),
    *("as_string", "as_strings", "as_int_lists", "as_float_lists"),
)
_FLOAT_WORDS = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}


def read_argument(
    argument: dict[str, Any],
    tensor: Callable[[str], Value],
    sizes: Mapping[str, Any],
    symbols: Mapping[str, int],
) -> Value:
    """Resolve one argument.

    Args:
        argument: The record.
        tensor: Gives what the name of a tensor stands for.
        sizes: The program's records of symbolic integers, by name.
        symbols: Values of the symbols.

    Raises:
        FormatError: The record is malformed.
    """
    for kind, content in argument.items():
        if kind == "as_optional_tensors":
            return tuple(
                next((tensor(name) for name in tensor_names(item)), None)
                for item in field(argument, kind, list)
            )
        if kind in TENSOR_KINDS:
            found = tuple(tensor(name) for name in tensor_names(argument))
            single = kind in ("as_tensor", "as_optional_tensor")
            return (found[0] if found else None) if single else found
        if kind == "as_none":
            return None
        if kind == "as_scalar_type" and isinstance(content, int):
            return DTYPES.get(content, "unknown")
        if kind in _PLAIN_KINDS:
            return _plain(content)
        if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            return _symbolic(content, sizes, symbols)
        if kind in ("as_sym_ints", "as_sym_floats", "as_sym_bools"):
            return tuple(_symbolic(item, sizes, symbols) for item in field(argument, kind, list))
    return Opaque(next(iter(argument), "nothing").removeprefix("as_"))


def _symbolic(argument: object, sizes: Mapping[str, Any], symbols: Mapping[str, int]) -> Value:
    if isinstance(argument, dict) and "as_name" in argument:
        name = field(argument, "as_name", str)
        record = sizes.get(name)
        try:
            return Opaque(name) if record is None else pt2_shapes.integer(record, symbols)
        except pt2_shapes.OpenSymbolError:
            return Opaque(name)
    if isinstance(argument, dict) and len(argument) == 1:
        return _plain(next(iter(argument.values())))
    return Opaque("symbol")


def _plain(content: object) -> Value:
    """A number, text or list of these; torch writes non-finite numbers as words."""
    if isinstance(content, list):
        return tuple(_plain(item) for item in content)
    if isinstance(content, str):
        return _FLOAT_WORDS.get(content, content)
    return content if isinstance(content, int | float) else Opaque("unknown")
