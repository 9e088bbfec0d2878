"""ONNX files as graphs. Needs onnx and numpy, neither torch nor onnxruntime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx

from leakaudit.errors import AuditError
from leakaudit.frontends.interface import LoadOptions, require_shape
from leakaudit.frontends.onnx.context import Context
from leakaudit.frontends.onnx.file import default_opset, is_default, read_model, require_network
from leakaudit.frontends.onnx.inline import inline_functions
from leakaudit.frontends.onnx.inputs import resolve_inputs
from leakaudit.frontends.onnx.limits import REPAIR, require_limits, require_own_numbers
from leakaudit.frontends.onnx.native import OnnxNative
from leakaudit.frontends.onnx.node import kind
from leakaudit.frontends.onnx.operators.registry import OPERATORS, REFUSED
from leakaudit.frontends.onnx.scan import Scan
from leakaudit.frontends.onnx.shapes import ShapeInference
from leakaudit.frontends.onnx.weights import OnnxWeights
from leakaudit.graph import Graph
from leakaudit.sandbox.limits import Deadline, bounded_memory


def load(path: str, options: LoadOptions) -> Graph:
    """Read an ONNX file; its weights only when something asks for them.

    Nodes that leakaudit does not understand become `Unsupported`.

    Raises:
        AuditError: The file is not a readable ONNX model of opset 7 or later, or the sizes of its
            inputs stay open or contradict the options, it is above a limit, or reading it ends in
            a crash of the helper process.
    """
    deadline = options.limits.start(path)
    model = read_model(path, options.limits)
    return replace(_read(path, model, options, deadline), name=Path(path).stem)


def load_proto(model: onnx.ModelProto, options: LoadOptions, name: str = "") -> Graph:
    """Read a model in memory, which stays as it is and is not copied.

    Args:
        model: The model, its weights included.
        options: As for a file.
        name: What stands for the model in the graph and in messages; its graph's name by default.

    Raises:
        AuditError: Its weights are in files, or as for `load`.
    """
    target = name or model.graph.name or "model"
    deadline = options.limits.start(target)
    with bounded_memory(options.limits, target):
        require_network(target, model)
        require_own_numbers(target, model)
        if model.functions:
            # Calls of functions are replaced in place.
            model, given = onnx.ModelProto(), model
            model.CopyFrom(given)
        return _read(target, model, options, deadline)


def _read(target: str, model: onnx.ModelProto, options: LoadOptions, deadline: Deadline) -> Graph:
    require_limits(target, model, options.limits)
    with OnnxNative(target, options.limits) as native:
        try:
            return _graph(target, model, options, native, deadline)
        except UnicodeError as error:
            raise AuditError(target, "a name in it is not UTF-8 text", REPAIR) from error


def _graph(
    path: str, model: onnx.ModelProto, options: LoadOptions, native: OnnxNative, deadline: Deadline
) -> Graph:
    for function in model.functions:
        if is_default(function.domain):
            raise AuditError(path, f"it redefines the operator {function.name!r}", REPAIR)
    inline_functions(model, native)
    stored = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in stored]
    if not values:
        raise AuditError(path, "the network has no input", "export the model with its input")
    inputs = resolve_inputs(path, values, options)
    for tensor in inputs.values():
        require_shape(path, tensor.name, tensor.shape, options.limits)
    shapes = ShapeInference(model, inputs.values(), native)
    weights = OnnxWeights(path, default_opset(model))
    scan = Scan(path, model.graph, weights, shapes, deadline)
    scan.run()
    functions = {(function.domain, function.name) for function in model.functions}

    def convert(context: Context, node: onnx.NodeProto) -> None:
        reason = _refusal(node, functions) or context.draft.attempt(
            lambda: OPERATORS[node.op_type](context, node)
        )
        if reason is not None:
            context.unsupported(node, reason)

    for value in model.graph.output:
        if value.type.WhichOneof("value") not in (None, "tensor_type"):
            raise AuditError(path, f"its output {value.name!r} is not a tensor", REPAIR)
    declared = [value.name for value in model.graph.output]
    context = Context(scan, declared, shapes, weights, options, convert)
    draft = context.draft
    draft.tensors.update(inputs)
    for index, node in enumerate(scan.nodes):
        deadline.check()
        constant = all(name in weights for name in node.output if name)
        if index not in context.absorbed and not constant:
            convert(context, node)
    outputs = tuple(name for name in declared if name in draft.tensors)
    if not outputs:
        raise AuditError(path, "no output depends on the network's input", REPAIR)
    return Graph(
        name=path,
        format="onnx",
        inputs=tuple(inputs),
        outputs=outputs,
        tensors=draft.tensors,
        parameters=draft.parameters,
        nodes=tuple(draft.nodes),
        weights=weights,
        notes=options.unused_frozen((*weights.stored, *weights.values, *weights.computed)),
    )


def _refusal(node: onnx.NodeProto, functions: set[tuple[str, str]]) -> str:
    """Why a node cannot be understood whatever its inputs are; empty where a builder decides."""
    if not node.output[0]:
        return "its first output is left out"
    if (node.domain, node.op_type) in functions:
        return "this function of the file cannot be put in its place"
    if not is_default(node.domain):
        return f"operators of the domain {node.domain!r} are not known"
    if node.op_type in OPERATORS:
        return ""
    return REFUSED.get(node.op_type, f"the operator {kind(node)} is not known")
