"""Holds an ONNX model against the limits before anything walks through it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from leakaudit.errors import AuditError
from leakaudit.frontends.interface import require_shape
from leakaudit.frontends.onnx.node import subgraphs
from leakaudit.sandbox.limits import Limits

REPAIR = "find the fault with onnx.checker.check_model and export the model again"
TYPES = frozenset(TensorProto.DataType.values())

# Types whose numbers stand in their field one by one, complex and packed ones left out.
_ITEM_BYTES = {
    **dict.fromkeys((TensorProto.BOOL, TensorProto.INT8, TensorProto.UINT8), 1),
    **dict.fromkeys((TensorProto.INT16, TensorProto.UINT16), 2),
    **dict.fromkeys((TensorProto.FLOAT16, TensorProto.BFLOAT16), 2),
    **dict.fromkeys((TensorProto.FLOAT, TensorProto.INT32, TensorProto.UINT32), 4),
    **dict.fromkeys((TensorProto.DOUBLE, TensorProto.INT64, TensorProto.UINT64), 8),
}

_Level = tuple[Sequence[onnx.NodeProto], Sequence[TensorProto], int]


def require_limits(path: str, model: onnx.ModelProto, limits: Limits) -> None:
    """Count nodes, nesting, axes, numbers and external data.

    Raises:
        AuditError: One of them is above its limit, or external data lie outside the model's folder.
    """
    nodes = external = 0
    _require_unique(path, "input", (value.name for value in model.graph.input))
    _require_unique(path, "initializer", (tensor.name for tensor in model.graph.initializer))
    for level, tensors, depth in _levels(model):
        for node in level:
            _require_text(path, node)
        limits.require("nesting", depth, path, "the depth of its subgraphs")
        nodes += len(level)
        limits.require("nodes", nodes, path, "the number of its nodes")
        for tensor in tensors:
            external += _require_tensor(path, tensor, limits)
    limits.require("external_bytes", external, path, "the size of its external data")


def require_own_numbers(target: str, model: onnx.ModelProto) -> None:
    """Refuse a model in memory whose numbers stand in files: it lies in no folder of its own.

    Raises:
        AuditError: A tensor's data are external.
    """
    for _, tensors, _ in _levels(model):
        for tensor in tensors:
            if tensor.data_location == TensorProto.EXTERNAL:
                raise AuditError(
                    target,
                    f"the numbers of {tensor.name!r} are in a file, and a model in memory has no "
                    "folder in which to look for it",
                    "save it with onnx.save_model(model, 'model.onnx') and audit that file",
                )


def external_file(path: str, tensor: str, location: str) -> Path:
    """Where external data lie. The model must not make us read anything outside its folder.

    Raises:
        AuditError: The location is absolute, leads upwards, or is a link that leads out.
    """
    folder = Path(path).parent.resolve()
    parts = location.replace("\\", "/").split("/")
    absolute = parts[0] == "" or parts[0].endswith(":")  # so is the empty one
    outside = absolute or ".." in parts or "\0" in location
    try:
        file = folder if outside else (folder / location).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links; bytes that are no file name
        file = folder
    if file == folder or not file.is_relative_to(folder):
        raise AuditError(
            path,
            f"tensor {tensor!r} names external data outside the model's folder: {location!r}",
            "put the data file beside the model and refer to it by its name",
        )
    return file


def _levels(model: onnx.ModelProto) -> Iterator[_Level]:
    """Nodes and stored tensors of every graph, with the depth at which it stands."""
    pending: list[_Level] = [(model.graph.node, _stored(model.graph), 0)]
    pending += [(function.node, (), 0) for function in model.functions]
    while pending:
        level = pending.pop()
        yield level
        for node in level[0]:
            values = [e.t for e in node.attribute if e.HasField("t")]
            values += [tensor for e in node.attribute for tensor in e.tensors]
            if values:
                yield (), values, level[2]
            pending += [(g.node, _stored(g), level[2] + 1) for g in subgraphs(node)]


def _stored(graph: onnx.GraphProto) -> list[TensorProto]:
    sparse = graph.sparse_initializer
    return [*graph.initializer, *(part for s in sparse for part in (s.values, s.indices))]


def _require_tensor(path: str, tensor: TensorProto, limits: Limits) -> int:
    """Check a stored tensor; the size of its external data."""
    if any(size < 0 for size in tensor.dims):
        return 0  # refused where it is read, by name
    if not isinstance(tensor.name, str):
        raise _not_text(path)
    require_shape(path, tensor.name, tensor.dims, limits)
    if tensor.data_location != TensorProto.EXTERNAL:
        if not _holds_its_numbers(tensor):
            raise AuditError(
                path,
                f"the data of {tensor.name!r} do not match its type and shape",
                "export the model again, or copy or download the whole file",
            )
        return 0
    entries = {entry.key: entry.value for entry in tensor.external_data}
    external_file(path, tensor.name, entries.get("location", ""))
    if "length" in entries:
        return _size(entries["length"])
    elements: int = math.prod(tensor.dims)
    return elements * _item_bytes(tensor.data_type)


def _holds_its_numbers(tensor: TensorProto) -> bool:
    """Whether the numbers in the file are as many as its shape says, where that is simple."""
    elements: int = math.prod(tensor.dims)
    kind = tensor.data_type
    if kind not in _ITEM_BYTES:
        return kind in TYPES and kind != TensorProto.UNDEFINED
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data) == elements * _ITEM_BYTES[kind]
    return len(getattr(tensor, helper.tensor_dtype_to_field(kind))) == elements


def _require_unique(path: str, what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str):
            raise _not_text(path)
        if name in seen:
            raise AuditError(path, f"the {what} {name!r} stands in it twice", REPAIR)
        seen.add(name)


def _require_text(path: str, node: onnx.NodeProto) -> None:
    # protobuf gives what is not UTF-8 as bytes.
    texts = [node.name, node.op_type, node.domain, *node.input, *node.output]
    texts += [entry.name for entry in node.attribute]
    if not all(isinstance(text, str) for text in texts):
        raise _not_text(path)


def _not_text(path: str) -> AuditError:
    return AuditError(path, "a name in it is not UTF-8 text", REPAIR)


def _item_bytes(element_type: int) -> int:
    try:
        itemsize: int = helper.tensor_dtype_to_np_dtype(element_type).itemsize
        return itemsize
    except KeyError:
        return 1


def _size(text: str) -> int:
    # Longer numbers are refused where they are read; int() refuses very long ones by itself.
    return int(text) if text.isdecimal() and len(text) < 20 else 0
