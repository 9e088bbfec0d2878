"""Reading one ONNX node: its attributes by type, what it reads, what to call it."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.frontends.onnx.file import is_default

_Attribute = onnx.AttributeProto


def integer(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute, or the default.

    Raises:
        NotUnderstoodError: The attribute is of another type. So below.
    """
    entry = _find(node, name, _Attribute.INT)
    return default if entry is None else int(entry.i)


def real(node: onnx.NodeProto, name: str, default: float) -> float:
    """A floating-point attribute, or the default."""
    entry = _find(node, name, _Attribute.FLOAT)
    return default if entry is None else float(entry.f)


def text(node: onnx.NodeProto, name: str, default: str) -> str:
    """A string attribute, or the default."""
    entry = _find(node, name, _Attribute.STRING)
    return default if entry is None else str(entry.s.decode("utf-8", errors="replace"))


def integers(node: onnx.NodeProto, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """A list of integers as long as the default, or the default."""
    entry = _find(node, name, _Attribute.INTS)
    if entry is None:
        return default
    if len(entry.ints) != len(default):
        raise NotUnderstoodError(f"its attribute {name!r} does not have {len(default)} numbers")
    return tuple(entry.ints)


def integer_list(node: onnx.NodeProto, name: str) -> tuple[int, ...] | None:
    """A list of integers of any length, None where the node leaves it out."""
    entry = _find(node, name, _Attribute.INTS)
    return None if entry is None else tuple(entry.ints)


def _find(node: onnx.NodeProto, name: str, kind: int) -> onnx.AttributeProto | None:
    for entry in node.attribute:
        if entry.name == name:
            if entry.type != kind:
                raise NotUnderstoodError(f"its attribute {name!r} is of an unexpected type")
            return entry
    return None


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a control-flow node holds."""
    for entry in node.attribute:
        if entry.HasField("g"):
            yield entry.g
        yield from entry.graphs


def reads(node: onnx.NodeProto) -> tuple[str, ...]:
    """Names that a node reads: its inputs, and what its subgraphs take from outside."""
    names = [name for name in node.input if name]
    for graph in subgraphs(node):
        inside = {value.name for value in graph.input}
        inside.update(tensor.name for tensor in graph.initializer)
        for inner in graph.node:
            names.extend(name for name in reads(inner) if name not in inside)
            inside.update(inner.output)
        names.extend(value.name for value in graph.output if value.name not in inside)
    return tuple(names)


def kind(node: onnx.NodeProto) -> str:
    """The operator as the file names it, with its domain unless that is the standard one."""
    return node.op_type if is_default(node.domain) else f"{node.domain}::{node.op_type}"


def own_name(index: int, node: onnx.NodeProto) -> str:
    """The node's name, or one made of its operator and its place in the file."""
    return node.name or f"{node.op_type}_{index}"
