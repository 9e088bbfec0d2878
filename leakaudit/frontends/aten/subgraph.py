"""Calls that hold a subgraph: what they write into, and those that only compute constants.

Position encodings are made under `torch.no_grad()`, which torch.export writes as such a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leakaudit.frontends.aten import memory, shapes
from leakaudit.frontends.aten.arguments import read_argument
from leakaudit.frontends.aten.call import Call
from leakaudit.frontends.aten.folding import fold as folding
from leakaudit.frontends.aten.schema import dtype_name, field, records, tensor_names
from leakaudit.frontends.aten.values import Array, Stored, Value
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.graph import Tensor

_RUN_ONCE = ("higher_order.wrap_with_set_grad_enabled", "higher_order.wrap_with_autocast")


def writes(record: Mapping[str, Any], target: str) -> bool:
    """Whether a call writes into an argument; of a call with a subgraph, whether that does."""
    subgraphs = _subgraphs(record)
    if not subgraphs:
        return memory.writes(target)
    return any(
        writes(inner, field(inner, "target", str).removeprefix("torch.ops."))
        for subgraph in subgraphs
        for inner in records(subgraph, "nodes")
    )


def _subgraphs(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        field(field(argument, "as_graph", dict), "graph", dict)
        for entry in records(record, "inputs")
        if "as_graph" in (argument := field(entry, "arg", dict))
    ]


def fold(
    record: Mapping[str, Any], call: Call, symbols: Mapping[str, int]
) -> tuple[Array, ...] | None:
    """The outputs of a call whose subgraph reads constants only, or None for any other call.

    Args:
        record: The call as the file states it, with its subgraph.
        call: The call resolved; the tensors among its arguments are the subgraph's inputs.
        symbols: Values of the symbols in shapes.

    Raises:
        FormatError: The subgraph is malformed.
    """
    given = [value for value in call.arguments.values() if isinstance(value, Tensor | Stored)]
    if call.target not in _RUN_ONCE or not all(isinstance(value, Stored) for value in given):
        return None
    subgraphs = _subgraphs(record)
    if len(subgraphs) != 1:
        return None
    graph = subgraphs[0]
    inputs = [name for entry in records(graph, "inputs") for name in tensor_names(entry)]
    if len(inputs) != len(given):
        return None
    values: dict[str, Value] = dict(zip(inputs, given, strict=True))
    try:
        for node in records(graph, "nodes"):
            _run(node, graph, values, call, symbols)
        found = [
            call.sink.numbers(values.get(name))
            for entry in records(graph, "outputs")
            for name in tensor_names(entry)
        ]
    except (NotUnderstoodError, shapes.OpenSymbolError):
        return None
    arrays = tuple(numbers for numbers in found if numbers is not None)
    fits = [array.shape for array in arrays] == [output.shape for output in call.outputs]
    return arrays if fits else None


def _run(
    node: dict[str, Any],
    graph: dict[str, Any],
    values: dict[str, Value],
    outer: Call,
    symbols: Mapping[str, int],
) -> None:
    """Compute one node of the subgraph and add its outputs to `values`."""
    target = field(node, "target", str).removeprefix("torch.ops.")
    names = [name for entry in records(node, "outputs") for name in tensor_names(entry)]
    if not names and not memory.writes(target):
        return  # an assertion
    metas = field(graph, "tensor_values", dict)
    outputs = tuple(
        Tensor(name, shapes.shape(meta, symbols), dtype_name(meta))
        for name in names
        for meta in (field(metas, name, dict),)
    )
    sizes = field(graph, "sym_int_values", dict)
    arguments = {
        field(entry, "name", str): read_argument(
            field(entry, "arg", dict), values.get, sizes, symbols
        )
        for entry in records(node, "inputs")
    }
    call = Call(target, arguments, outputs, (True,) * len(names), outer.stored, outer.sink)
    arrays = None if memory.writes(target) else folding.fold(call)
    if arrays is None:
        raise NotUnderstoodError(f"{target} in a subgraph is not computed")
    for name, numbers in zip(names, arrays, strict=True):
        values[name] = outer.sink.constant(numbers)
