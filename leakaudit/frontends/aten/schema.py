"""The vocabulary of torch's export schema, read from untrusted JSON with every access checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

EXPORT_REMEDY = "write it with torch.export.save(torch.export.export(model, args), 'model.pt2')"

# `ScalarType` of torch's export schema -> numpy (or ml_dtypes) name.
DTYPES: Mapping[int, str] = {
    **{1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64"},
    **{6: "float16", 7: "float32", 8: "float64"},
    **{9: "complex32", 10: "complex64", 11: "complex128"},
    **{12: "bool", 13: "bfloat16", 28: "uint16", 34: "uint32", 35: "uint64"},
    **{29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz"},
    33: "float8_e8m0fnu",
}

# Kinds of `Argument` records that hold tensors.
TENSOR_KINDS = (
    *("as_tensor", "as_tensors", "as_optional_tensor", "as_optional_tensors"),
    *("as_nested_tensors", "as_string_to_argument"),
)

T = TypeVar("T")


class FormatError(Exception):
    """The archive breaks its own format; the text says where, in one line."""


def field(record: object, key: str, kind: type[T]) -> T:
    """Return `record[key]`, which must be a `kind`.

    Raises:
        FormatError: The key is missing or holds something else.
    """
    if not isinstance(record, dict) or key not in record:
        raise FormatError(f"the key {key!r} is missing")
    value = record[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise FormatError(f"{key!r} is not of type {kind.__name__}")
    return value


def records(parent: object, key: str) -> list[dict[str, Any]]:
    """Return `parent[key]`, which must be a list of objects.

    Raises:
        FormatError: It is not.
    """
    found = field(parent, key, list)
    if not all(isinstance(item, dict) for item in found):
        raise FormatError(f"{key!r} is not a list of objects")
    return found


def dtype_name(meta: object) -> str:
    """Return the numpy dtype name of a `TensorMeta` record.

    Raises:
        FormatError: The code is unknown.
    """
    code = field(meta, "dtype", int)
    if code not in DTYPES:
        raise FormatError(f"the dtype code {code} is unknown")
    return DTYPES[code]


def tensor_names(argument: object) -> Iterator[str]:
    """Yield the names of the tensors in an `Argument` record, not those inside a subgraph."""
    if not isinstance(argument, dict):
        raise FormatError("an argument is not an object")
    for kind, content in argument.items():
        if kind == "as_tensor":
            yield field(content, "name", str)
        elif kind == "as_optional_tensor":
            yield from tensor_names(content)
        elif kind in ("as_tensors", "as_nested_tensors"):
            for item in field(argument, kind, list):
                for entry in item if isinstance(item, list) else [item]:
                    yield field(entry, "name", str)
        elif kind == "as_optional_tensors":
            for item in field(argument, kind, list):
                yield from tensor_names(item)
        elif kind == "as_string_to_argument":
            for item in field(argument, kind, dict).values():
                yield from tensor_names(item)
