"""Shapes and types of an ONNX model's values, node by node, for concrete inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import defs, helper, numpy_helper, shape_inference

from leakaudit.frontends.onnx_file import is_default
from leakaudit.frontends.onnx_inputs import dtype_name
from leakaudit.graph import Tensor

MAX_DATA_ELEMENTS = 1024  # values that decide shapes (axes, target shapes, scales) are short
_FAILURES = (
    shape_inference.InferenceError,
    onnx.checker.ValidationError,
    DecodeError,
    RuntimeError,
    TypeError,
    ValueError,
)


class ShapeInference:
    """Infers the types of values in the order of the nodes.

    One node at a time, so that everything folded so far can decide a shape. Where that gives no
    shape (functions and control flow), inference over the whole model, without its weights.
    """

    def __init__(self, model: onnx.ModelProto, inputs: Iterable[Tensor]) -> None:
        self._model = model
        self._opsets = {
            "" if is_default(entry.domain) else entry.domain: entry.version
            for entry in model.opset_import
        }
        self._types: dict[str, onnx.TypeProto] = {}
        self._whole: dict[str, onnx.TypeProto] | None = None
        declared = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
        self._inputs = {
            tensor.name: helper.make_tensor_type_proto(declared[tensor.name], tensor.shape)
            for tensor in inputs
        }
        self._types.update(self._inputs)

    def add_constant(self, name: str, element_type: int, shape: Iterable[int]) -> None:
        """State the type of stored or folded numbers."""
        self._types[name] = helper.make_tensor_type_proto(element_type, tuple(shape))

    def known(self, name: str) -> bool:
        """Whether a value of this name has been defined."""
        return name in self._types

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The concrete shape, or None where it is not known."""
        return _concrete(self._types.get(name))

    def element_type(self, name: str) -> int:
        """The ONNX element type, 0 where it is not known."""
        found = self._types.get(name)
        return 0 if found is None else int(found.tensor_type.elem_type)

    def dtype(self, name: str) -> str:
        """The numpy name of the element type, or `undefined`."""
        return dtype_name(self.element_type(name))

    def infer(self, node: onnx.NodeProto, data: Mapping[str, np.ndarray]) -> None:
        """Define the outputs of a node. `data` holds the known numbers among its inputs."""
        found = self._infer_node(node, data)
        for name in node.output:
            if not name:
                continue
            value = found.get(name, onnx.TypeProto())
            if _concrete(value) is None:
                whole = self._whole_model().get(name)
                value = value if _concrete(whole) is None else whole
            self._types[name] = value

    def _infer_node(
        self, node: onnx.NodeProto, data: Mapping[str, np.ndarray]
    ) -> Mapping[str, onnx.TypeProto]:
        domain = "" if is_default(node.domain) else node.domain
        names = {name for name in node.input if name}
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            return {}
        if any(self.element_type(name) == 0 for name in names):
            return {}
        try:
            schema = defs.get_schema(node.op_type, self._opsets.get(domain, 1), domain)
            found: Mapping[str, onnx.TypeProto] = shape_inference.infer_node_outputs(
                schema,
                node,
                {name: self._types[name] for name in names},
                {
                    name: numpy_helper.from_array(array, name)
                    for name, array in data.items()
                    if array.size <= MAX_DATA_ELEMENTS
                },
                opset_imports=[helper.make_opsetid(key, self._opsets[key]) for key in self._opsets],
                ir_version=self._model.ir_version,
            )
        except (defs.SchemaError, *_FAILURES):
            return {}
        return found

    def _whole_model(self) -> Mapping[str, onnx.TypeProto]:
        if self._whole is None:
            try:
                inferred = shape_inference.infer_shapes(self._without_weights(), data_prop=True)
                values = (*inferred.graph.value_info, *inferred.graph.output)
                self._whole = {value.name: value.type for value in values}
            except _FAILURES:
                self._whole = {}
        return self._whole

    def _without_weights(self) -> onnx.ModelProto:
        """Copy the model with inputs for its large constants, and without the shapes it claims."""
        source = self._model.graph
        copy = onnx.ModelProto(ir_version=max(self._model.ir_version, 4))
        copy.opset_import.extend(self._model.opset_import)
        copy.functions.extend(self._model.functions)
        graph = copy.graph
        graph.name = "shapes"
        for name, value in self._inputs.items():
            graph.input.append(helper.make_value_info(name, value))
        for tensor in source.initializer:
            if _is_small(tensor):
                graph.initializer.append(tensor)
            else:
                graph.input.append(_as_input(tensor.name, tensor))
        for node in source.node:
            value = next((entry.t for entry in node.attribute if entry.HasField("t")), None)
            if node.op_type == "Constant" and value is not None and not _is_small(value):
                graph.input.append(_as_input(node.output[0], value))
            else:
                graph.node.append(node)
        for output in source.output:
            element_type = output.type.tensor_type.elem_type
            tensor_type = onnx.TypeProto.Tensor(elem_type=element_type)
            kind = onnx.TypeProto(tensor_type=tensor_type)
            graph.output.append(helper.make_value_info(output.name, kind))
        return copy


def _is_small(tensor: onnx.TensorProto) -> bool:
    inline = tensor.data_location != onnx.TensorProto.EXTERNAL
    return inline and math.prod(tensor.dims) <= MAX_DATA_ELEMENTS


def _as_input(name: str, tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, tensor.data_type, tuple(tensor.dims))


def _concrete(value: onnx.TypeProto | None) -> tuple[int, ...] | None:
    if value is None or not value.tensor_type.HasField("shape"):
        return None
    axes = value.tensor_type.shape.dim
    if not all(axis.HasField("dim_value") and axis.dim_value >= 0 for axis in axes):
        return None
    return tuple(axis.dim_value for axis in axes)
