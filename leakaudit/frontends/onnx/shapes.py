"""Shapes and types of an ONNX model's values, node by node, for concrete inputs."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import defs, helper, numpy_helper

from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.frontends.onnx.file import is_default
from leakaudit.frontends.onnx.inputs import dtype_name
from leakaudit.frontends.onnx.native import IR_VERSION, NativeError, Numbers, OnnxNative, Types
from leakaudit.frontends.onnx.node import reads, subgraphs
from leakaudit.graph import Tensor

MAX_DATA_ELEMENTS = 1024  # values that decide shapes (axes, target shapes, scales) are short
# Operators without shape inference of their own: the output's type is the first input's.
_LIKE_INPUT = frozenset({"GroupNormalization", "MeanVarianceNormalization"})
_FAILURES = (defs.SchemaError, NativeError, TypeError, ValueError)


class ShapeInference:
    """Infers the types of values in the order of the nodes.

    One node at a time, so that everything folded so far can decide a shape and no weight is copied.
    """

    def __init__(
        self, model: onnx.ModelProto, inputs: Iterable[Tensor], native: OnnxNative
    ) -> None:
        self._model = model
        self._native = native
        self._opsets = {
            "" if is_default(entry.domain) else entry.domain: entry.version
            for entry in model.opset_import
        }
        self._types: dict[str, onnx.TypeProto] = {}
        declared = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
        for tensor in inputs:
            self.add(tensor.name, declared[tensor.name], tensor.shape)

    def add(self, name: str, element_type: int, shape: Iterable[int]) -> None:
        """State the type of an input or of stored numbers."""
        self._types[name] = helper.make_tensor_type_proto(element_type, tuple(shape))

    def known(self, name: str) -> bool:
        """Whether a value of this name has been defined."""
        return name in self._types

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The concrete shape, or None where it is not known."""
        return _concrete(self._types.get(name))

    def required(self, name: str) -> tuple[int, ...]:
        """The concrete shape of a value that must have one."""
        shape = self.shape(name)
        if shape is None:
            raise NotUnderstoodError(f"the shape of {name!r} is not known")
        return shape

    def element_type(self, name: str) -> int:
        """The ONNX element type, 0 where it is not known."""
        found = self._types.get(name)
        return 0 if found is None else int(found.tensor_type.elem_type)

    def dtype(self, name: str) -> str:
        """The numpy name of the element type, or `undefined`."""
        return dtype_name(self.element_type(name))

    def infer(self, node: onnx.NodeProto, data: Numbers) -> None:
        """Define the outputs of a node. `data` holds the known numbers among its inputs."""
        names = set(reads(node))
        data = {name: array for name, array in data.items() if array.size <= MAX_DATA_ELEMENTS}
        found: Types = {}
        if all(self.element_type(name) for name in names):
            infer = self._infer_model if any(subgraphs(node)) else self._infer_operator
            try:
                found = infer(node, {name: self._types[name] for name in names}, data)
            except _FAILURES:
                found = {}
        if node.op_type in _LIKE_INPUT and is_default(node.domain) and names and node.input[0]:
            found = {**found, node.output[0]: self._types[node.input[0]]}
        for name in node.output:
            if name:
                self._types[name] = found.get(name, onnx.TypeProto())

    def _infer_operator(self, node: onnx.NodeProto, types: Types, data: Numbers) -> Types:
        domain = "" if is_default(node.domain) else node.domain
        schema = defs.get_schema(node.op_type, self._opsets.get(domain, 1), domain)
        _check_call(node, schema, types)
        return self._native.infer_node(node, domain, types, data, self._opsets)

    def _infer_model(self, node: onnx.NodeProto, types: Types, data: Numbers) -> Types:
        """Infer control flow as a model of this one node.

        Functions of the file stay outside: those that were not put in their place may call
        themselves, or take forever.
        """
        graph = onnx.GraphProto(
            node=[node],
            initializer=[numpy_helper.from_array(array, name) for name, array in data.items()],
            input=[helper.make_value_info(n, value) for n, value in types.items() if n not in data],
        )
        return self._native.infer_model(
            onnx.ModelProto(
                ir_version=IR_VERSION, opset_import=self._model.opset_import, graph=graph
            )
        )


def _check_call(node: onnx.NodeProto, schema: defs.OpSchema, types: Types) -> None:
    """Refuse what makes some of onnx's own inference, in C++, read beyond its memory (1.23).

    That is a wrong number of inputs or outputs, and an axis that the first input does not have.
    """
    inputs, outputs = len(node.input), len(node.output)
    if not schema.min_input <= inputs <= schema.max_input:
        raise ValueError(f"{inputs} inputs")
    if not schema.min_output <= outputs <= schema.max_output:
        raise ValueError(f"{outputs} outputs")
    first = types.get(node.input[0]) if node.input else None
    shape = first.tensor_type.shape.dim if first and first.tensor_type.HasField("shape") else None
    for entry in node.attribute:
        if entry.name == "num_outputs" and entry.i != outputs:
            raise ValueError(f"{outputs} outputs for {entry.i}")
        rank = len(shape or ())
        if entry.name == "axis" and shape is not None and not -rank - 1 <= entry.i <= rank:
            raise ValueError(f"axis {entry.i} of {rank}")


def _concrete(value: onnx.TypeProto | None) -> tuple[int, ...] | None:
    if value is None or not value.tensor_type.HasField("shape"):
        return None
    axes = value.tensor_type.shape.dim
    if not all(axis.HasField("dim_value") and axis.dim_value >= 0 for axis in axes):
        return None
    return tuple(axis.dim_value for axis in axes)
