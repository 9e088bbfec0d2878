"""Replaces calls by what they call: functions that the file defines, and branches of an If."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

import onnx
from onnx import helper

from leakaudit.frontends.onnx.native import NativeError, OnnxNative
from leakaudit.frontends.onnx.node import subgraphs

MAX_INLINED_NODES = 200_000  # a function that calls another twice, thirty deep, is a small file

_Key = tuple[str, str]


def inline_functions(model: onnx.ModelProto, native: OnnxNative) -> None:
    """Replace calls of the file's own functions by their bodies, in place.

    Nothing happens where that is impossible: functions that call themselves, that would grow
    beyond `MAX_INLINED_NODES`, or that the checker refuses.
    """
    if not model.functions or not _is_small(model):
        return
    # The weights stay behind: the inliner copies the model twice, and needs only their names.
    graph = model.graph
    inputs = {value.name for value in graph.input}
    names = [tensor.name for tensor in graph.initializer]
    names += [tensor.values.name for tensor in graph.sparse_initializer]
    stored = [
        helper.make_value_info(name, onnx.TypeProto()) for name in names if name not in inputs
    ]
    shell = onnx.ModelProto(
        ir_version=max(model.ir_version, 8),
        opset_import=model.opset_import,
        functions=model.functions,
        graph=onnx.GraphProto(
            name=graph.name, node=graph.node, output=graph.output, input=[*graph.input, *stored]
        ),
    )
    try:
        inlined = native.inlined(shell)
    except NativeError:
        return
    del model.graph.node[:]
    model.graph.node.extend(inlined.graph.node)
    del model.functions[:]
    model.functions.extend(inlined.functions)


def _is_small(model: onnx.ModelProto) -> bool:
    """Whether the model stays small with every call replaced, and no function calls itself."""
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    sizes: dict[_Key, int] = {}
    open_calls: set[_Key] = set()
    pending = list(bodies)
    while pending:
        key = pending[-1]
        if key in sizes:
            pending.pop()
            continue
        calls = [call for call in _calls(bodies[key]) if call in bodies]
        missing = [call for call in calls if call not in sizes]
        if any(call in open_calls or call == key for call in missing):
            return False
        if missing:
            open_calls.add(key)
            pending.extend(missing)
            continue
        open_calls.discard(key)
        sizes[key] = sum(sizes.get(call, 1) for call in _calls(bodies[key]))
        if sizes[key] > MAX_INLINED_NODES:
            return False
    return sum(sizes.get(call, 1) for call in _calls(model.graph.node)) <= MAX_INLINED_NODES


def _calls(nodes: Sequence[onnx.NodeProto]) -> list[_Key]:
    """What the nodes and their subgraphs apply, one entry for each node."""
    found: list[_Key] = []
    pending = [nodes]
    while pending:
        for node in pending.pop():
            found.append((node.domain, node.op_type))
            pending.extend(graph.node for graph in subgraphs(node))
    return found


def branch(node: onnx.NodeProto, condition: bool) -> onnx.GraphProto | None:
    """The branch that an If takes, None where the file holds none that fits."""
    wanted = "then_branch" if condition else "else_branch"
    for entry in node.attribute:
        if entry.name == wanted and entry.HasField("g"):
            graph: onnx.GraphProto = entry.g
            fits = len(graph.output) == len(node.output) and not graph.input
            return graph if fits and not graph.sparse_initializer else None
    return None


def inline_branch(
    node: onnx.NodeProto, taken: onnx.GraphProto, is_known: Callable[[str], bool]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The branch's nodes and stored numbers, renamed so that they give the If's outputs.

    Args:
        node: The If.
        taken: Its branch.
        is_known: Whether a name stands for a value of the graph around it already.
    """
    made = [name for inner in taken.node for name in inner.output if name]
    made += [tensor.name for tensor in taken.initializer]
    renamed: dict[str, str] = {}
    for name in made:
        new = name
        while is_known(new) or (new != name and new in made):
            new = f"{node.output[0]}/{new}"
        renamed[name] = new
    copies: list[onnx.NodeProto] = []
    computed = {name for inner in taken.node for name in inner.output}
    for value, output in zip(taken.output, node.output, strict=True):
        if not output:
            continue
        if value.name in computed and renamed.get(value.name) not in node.output:
            renamed[value.name] = output
        else:  # it passes on a value from outside, a stored one, or one output twice
            source = renamed.get(value.name, value.name)
            copies.append(helper.make_node("Identity", [source], [output]))
    nodes = [deepcopy(inner) for inner in taken.node]
    for inner in nodes:
        _rename_in(inner, renamed)
    tensors = [deepcopy(tensor) for tensor in taken.initializer]
    for tensor in tensors:
        tensor.name = renamed[tensor.name]
    return nodes + copies, tensors


def _rename_in(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for graph in subgraphs(node):
        hidden = {value.name for value in graph.input}
        hidden.update(tensor.name for tensor in graph.initializer)
        hidden.update(name for inner in graph.node for name in inner.output)
        visible = {name: new for name, new in names.items() if name not in hidden}
        for inner in graph.node:
            _rename_in(inner, visible)
        for value in graph.output:
            value.name = visible.get(value.name, value.name)
