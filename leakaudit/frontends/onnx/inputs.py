"""Concrete shapes for the inputs of an ONNX model: batch size, the user's sizes, named sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx
from onnx import helper

from leakaudit.errors import AuditError
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Tensor

UNDEFINED_DTYPE = "undefined"
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


def dtype_name(element_type: int) -> str:
    """The numpy name of an ONNX element type, or `undefined`."""
    try:
        return str(helper.tensor_dtype_to_np_dtype(element_type).name)
    except KeyError:
        return UNDEFINED_DTYPE


def resolve_inputs(
    target: str, values: Sequence[onnx.ValueInfoProto], options: LoadOptions
) -> dict[str, Tensor]:
    """Give every input a concrete shape.

    An open first size of an input of rank >= 2 is the batch. A named size that one input fixes
    holds for every input.

    Raises:
        AuditError: A size stays open, or the file, the options or the inputs contradict each other.
    """
    inputs = [_declared(target, value) for value in values]
    given = _given_shapes(target, [declared.name for declared in inputs], options)
    inputs = [replace(declared, given=given.get(declared.name)) for declared in inputs]
    sizes = _Sizes(target)
    for declared in inputs:
        sizes.take_given(declared)
    for declared in inputs:
        sizes.take_batch(declared, options.batch_size)
    return {declared.name: sizes.concrete(declared, single=len(inputs) == 1) for declared in inputs}


@dataclass(frozen=True, slots=True)
class _Axis:
    size: int | None  # None: open
    symbol: str  # "" where the file gives no name

    def __str__(self) -> str:
        named = repr(self.symbol) if self.symbol else "?"
        return named if self.size is None else str(self.size)


@dataclass(frozen=True, slots=True)
class _Declared:
    name: str
    dtype: str
    axes: tuple[_Axis, ...] | None = None  # None: not even the rank is known
    given: tuple[int, ...] | None = None  # the user's shape


def _declared(target: str, value: onnx.ValueInfoProto) -> _Declared:
    if value.type.WhichOneof("value") != "tensor_type":
        raise AuditError(
            target, f"input {value.name!r} is not a tensor", "export the model with tensor inputs"
        )
    tensor = value.type.tensor_type
    dtype = dtype_name(tensor.elem_type)
    if not tensor.HasField("shape"):
        return _Declared(value.name, dtype)
    axes = tuple(
        _Axis(axis.dim_value if axis.dim_value > 0 else None, axis.dim_param)
        for axis in tensor.shape.dim
    )
    return _Declared(value.name, dtype, axes)


def _given_shapes(
    target: str, names: Sequence[str], options: LoadOptions
) -> Mapping[str, tuple[int, ...]]:
    listed = ", ".join(map(repr, names))
    given: dict[str, tuple[int, ...]] = {}
    for key, shape in options.input_shapes.items():
        if key == "" and len(names) != 1:
            raise AuditError(
                target,
                f"it has {len(names)} inputs, so a shape needs a name",
                f"give `--input-shape name=shape`; the inputs are {listed}",
            )
        name = names[0] if key == "" else key
        if name not in names:
            raise AuditError(
                target, f"it has no input named {name!r}", f"name one of its inputs: {listed}"
            )
        if any(size < 1 for size in shape):
            raise AuditError(
                target,
                f"the shape {_text(shape)} for input {name!r} has a size below 1",
                "give positive sizes with `--input-shape`",
            )
        given[name] = tuple(shape)
    return given


@dataclass(slots=True)
class _Sizes:
    """The sizes known so far: of named sizes by that name, of batches by the input's name."""

    target: str
    named: dict[str, int] = field(default_factory=dict)
    batches: dict[str, int] = field(default_factory=dict)

    def take_given(self, declared: _Declared) -> None:
        shape = declared.given
        if declared.axes is None or shape is None:
            return
        agrees = len(declared.axes) == len(shape) and all(
            axis.size in (None, size) for axis, size in zip(declared.axes, shape, strict=True)
        )
        if not agrees:
            raise AuditError(
                self.target,
                f"input {declared.name!r} has shape {_text(declared.axes)}, "
                f"which {_text(shape)} does not fit",
                "give a shape that fits with `--input-shape`, or export the model again",
            )
        for axis, size in zip(declared.axes, shape, strict=True):
            if axis.size is None:
                self._bind(axis.symbol, size, declared.name)

    def take_batch(self, declared: _Declared, wanted: int | None) -> None:
        if declared.axes is None or len(declared.axes) < 2:
            return
        first, fixed = declared.axes[0], declared.axes[0].size
        by, repair = "the file", "export the model again with an open batch dimension"
        if fixed is None:
            by, repair = "its given shape", "make `--input-shape` and `--batch-size` agree"
            fixed = declared.given[0] if declared.given else self.named.get(first.symbol)
        if fixed is None:
            self.batches[declared.name] = wanted or 1
            self._bind(first.symbol, wanted or 1, declared.name)
        elif wanted is not None and wanted != fixed:
            reason = f"input {declared.name!r} has a batch of {fixed} by {by}, not {wanted}"
            raise AuditError(self.target, reason, repair)

    def concrete(self, declared: _Declared, *, single: bool) -> Tensor:
        if declared.given is not None:
            return Tensor(declared.name, declared.given, declared.dtype)
        prefix = "" if single else f"{declared.name}="
        if declared.axes is None:
            raise AuditError(
                self.target,
                f"the file gives no shape for input {declared.name!r}",
                f"give it with `--input-shape {prefix}1,3,32,32` (sizes of your data)",
            )
        found = [axis.size or self.named.get(axis.symbol) for axis in declared.axes]
        if declared.name in self.batches:
            found[0] = self.batches[declared.name]
        missing = [index for index, size in enumerate(found) if size is None]
        if missing:
            symbols = ((index, declared.axes[index].symbol) for index in missing)
            what = ", ".join(f"axis {i} ({name!r})" if name else f"axis {i}" for i, name in symbols)
            sample = ",".join("?" if size is None else str(size) for size in found)
            raise AuditError(
                self.target,
                f"input {declared.name!r} leaves the size of {what} open",
                f"give it with `--input-shape {prefix}{sample}` (a number for each ?)",
            )
        return Tensor(declared.name, tuple(size or 0 for size in found), declared.dtype)

    def _bind(self, symbol: str, size: int, name: str) -> None:
        if symbol and self.named.setdefault(symbol, size) != size:
            raise AuditError(
                self.target,
                f"{symbol!r} is {self.named[symbol]} for one input and {size} for {name!r}",
                "give shapes that agree with `--input-shape`",
            )


def _text(sizes: Sequence[int | _Axis]) -> str:
    return f"[{', '.join(map(str, sizes))}]"
