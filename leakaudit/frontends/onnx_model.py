"""ONNX files as graphs. Needs onnx and numpy, neither torch nor onnxruntime."""

from __future__ import annotations

from pathlib import Path

import onnx

from leakaudit.errors import AuditError
from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.onnx_constants import Constants
from leakaudit.frontends.onnx_context import Context
from leakaudit.frontends.onnx_file import default_opset, is_default, read_model
from leakaudit.frontends.onnx_inputs import resolve_inputs
from leakaudit.frontends.onnx_node import NotUnderstoodError, kind, own_name, reads
from leakaudit.frontends.onnx_ops import CONTROL_FLOW, OPERATORS, QUANTISED
from leakaudit.frontends.onnx_shapes import ShapeInference
from leakaudit.frontends.onnx_weights import OnnxWeights
from leakaudit.graph import Graph, Node

_REPAIR = "find the fault with onnx.checker.check_model and export the model again"


def load(path: str, options: LoadOptions) -> Graph:
    """Read an ONNX file; its weights only when something asks for them.

    Nodes that leakaudit does not understand become `Unsupported`.

    Raises:
        AuditError: The file is not a readable ONNX model of opset 7 or later, or the sizes of its
            inputs stay open or contradict the options.
    """
    model = read_model(path)
    for function in model.functions:
        if is_default(function.domain):
            raise AuditError(path, f"it redefines the operator {function.name!r}", _REPAIR)
    stored = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in stored]
    if not values:
        raise AuditError(path, "the network has no input", "export the model with its input")
    inputs = resolve_inputs(path, values, options)
    shapes = ShapeInference(model, inputs.values())
    weights = OnnxWeights(path, default_opset(model))
    _add_initializers(path, model.graph, weights, shapes)
    context = Context(model.graph, shapes, weights, options)
    context.tensors.update(inputs)
    context.activations.update(inputs)
    _scan(path, model.graph, Constants(weights, shapes), shapes, context)
    nodes = _convert(model, weights, context)
    outputs = tuple(value.name for value in model.graph.output if value.name in context.tensors)
    if not outputs:
        raise AuditError(path, "no output depends on the network's input", _REPAIR)
    return Graph(
        name=Path(path).stem,
        format="onnx",
        inputs=tuple(inputs),
        outputs=outputs,
        tensors=context.tensors,
        parameters=context.parameters,
        nodes=nodes,
        weights=weights,
    )


def _add_initializers(
    path: str, graph: onnx.GraphProto, weights: OnnxWeights, shapes: ShapeInference
) -> None:
    for tensor in graph.initializer:
        if any(size < 0 for size in tensor.dims):
            raise AuditError(path, f"initializer {tensor.name!r} has a negative size", _REPAIR)
        weights.stored[tensor.name] = tensor
        shapes.add(tensor.name, tensor.data_type, tensor.dims)


def _scan(
    path: str,
    graph: onnx.GraphProto,
    constants: Constants,
    shapes: ShapeInference,
    context: Context,
) -> None:
    """Define every value in order: fold what is constant, infer the shape of the rest."""
    sparse = {tensor.values.name for tensor in graph.sparse_initializer}
    for index, node in enumerate(graph.node):
        for name in reads(node):
            if not shapes.known(name) and name not in sparse:
                raise AuditError(
                    path,
                    f"node {own_name(index, node)!r} reads {name!r}, which is not computed yet",
                    _REPAIR,
                )
        for name in node.output:
            if shapes.known(name):
                raise AuditError(path, f"{name!r} is computed twice", _REPAIR)
        try:
            constant = constants.fold(node)
        except NotUnderstoodError:
            constant = False
        if not constant:
            shapes.infer(node, constants.small_values(node))
            context.activations.update(name for name in node.output if name)


def _convert(model: onnx.ModelProto, weights: OnnxWeights, context: Context) -> tuple[Node, ...]:
    functions = {(function.domain, function.name) for function in model.functions}
    nodes: list[Node] = []
    for index, node in enumerate(model.graph.node):
        if index in context.absorbed or all(name in weights for name in node.output if name):
            continue
        reason = _refusal(node, functions)
        if reason:
            nodes.append(context.unsupported(node, reason))
            continue
        try:
            nodes.extend(OPERATORS[node.op_type](context, node))
        except NotUnderstoodError as error:
            nodes.append(context.unsupported(node, str(error)))
    return tuple(nodes)


def _refusal(node: onnx.NodeProto, functions: set[tuple[str, str]]) -> str:
    """Why a node cannot be understood whatever its inputs are; empty where a builder decides."""
    if not node.output[0]:
        return "its first output is left out"
    if (node.domain, node.op_type) in functions:
        return "functions defined in the file are not followed"
    if not is_default(node.domain):
        return f"operators of the domain {node.domain!r} are not known"
    if node.op_type in CONTROL_FLOW:
        return "control flow is not followed"
    if node.op_type in QUANTISED:
        return "quantised arithmetic has no gradient"
    return "" if node.op_type in OPERATORS else f"the operator {kind(node)} is not known"
