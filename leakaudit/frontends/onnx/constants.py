"""Which values of an ONNX model are constants, and the numbers of the small ones."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper

from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.frontends.onnx.file import is_default
from leakaudit.frontends.onnx.fold import FOLDABLE, FoldError, evaluate
from leakaudit.frontends.onnx.node import integer
from leakaudit.frontends.onnx.shapes import ShapeInference
from leakaudit.frontends.onnx.weights import Computed, OnnxWeights

MAX_FOLDED_ELEMENTS = 65536
MAX_FOLDED_FLOATS = 16  # scales and sizes; larger ones are weights, computed only when read
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


class Constants:
    """Folds nodes that depend on no activation into the weights, in the order of the nodes."""

    def __init__(self, weights: OnnxWeights, shapes: ShapeInference) -> None:
        self.weights = weights
        self._shapes = shapes

    def fold(self, node: onnx.NodeProto) -> bool:
        """Take the node's outputs into the weights; False where it has to stay a node."""
        if not is_default(node.domain):
            return False
        if node.op_type == "Constant":
            return self._fold_constant(node)
        if node.op_type in ("Shape", "Size") and len(node.input) == 1 and len(node.output) == 1:
            return self._fold_shape(node)
        node = self._explicit_cast(node)
        names = {name for name in node.input if name}
        if node.op_type not in FOLDABLE or not names or not all(n in self.weights for n in names):
            return False
        return self._fold_computed(node, names)

    def small_values(self, node: onnx.NodeProto) -> dict[str, np.ndarray]:
        """The numbers of the small constants among a node's inputs."""
        found = {name: self._small_value(name) for name in node.input if name}
        return {name: value for name, value in found.items() if value is not None}

    def _small_value(self, name: str) -> np.ndarray | None:
        if name not in self.weights.values:
            if name not in self.weights.stored or not self._is_small([name]):
                return None
            self.weights.values[name] = self.weights.load(name)
        return self.weights.values[name]

    def _is_small(self, names: Iterable[str]) -> bool:
        return all(
            self._elements(name)
            <= (MAX_FOLDED_FLOATS if self._shapes.dtype(name) in FLOATS else MAX_FOLDED_ELEMENTS)
            for name in names
        )

    def _elements(self, name: str) -> int:
        return math.prod(self._shapes.shape(name) or ())

    def _fold_computed(self, node: onnx.NodeProto, names: set[str]) -> bool:
        values = self.small_values(node)
        self._shapes.infer(node, values)
        outputs = [name for name in node.output if name]
        if any(self._shapes.shape(name) is None for name in outputs):
            return False
        if self._is_small(outputs) and names == set(values):
            try:
                folded = evaluate(node, values, self.weights.opset)
            except FoldError:
                return False
            if any(value.shape != self._shapes.shape(name) for name, value in folded.items()):
                return False  # onnx's inference and evaluation disagree: believe neither
            for name, value in folded.items():
                self._add_value(name, value)
        elements = sum(self._elements(name) for name in outputs)
        for name in outputs:
            self.weights.computed[name] = Computed(node, elements)
        return True

    def _fold_constant(self, node: onnx.NodeProto) -> bool:
        if len(node.output) != 1 or len(node.attribute) != 1:
            return False
        name, entry = node.output[0], node.attribute[0]
        if entry.HasField("t"):
            self.weights.stored[name] = entry.t
            self._shapes.add(name, entry.t.data_type, entry.t.dims)
        elif entry.name in ("value_int", "value_ints"):
            self._add_value(name, np.array(helper.get_attribute_value(entry), dtype=np.int64))
        elif entry.name in ("value_float", "value_floats"):
            self._add_value(name, np.array(helper.get_attribute_value(entry), dtype=np.float32))
        else:
            return False
        return True

    def _explicit_cast(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A CastLike as a Cast: of the tensor that it compares with only the type matters."""
        if node.op_type != "CastLike" or len(node.input) != 2 or node.attribute:
            return node
        element_type = self._shapes.element_type(node.input[1])
        if not element_type:
            return node
        return helper.make_node("Cast", [node.input[0]], node.output, node.name, to=element_type)

    def _fold_shape(self, node: onnx.NodeProto) -> bool:
        shape = self._shapes.shape(node.input[0])
        if shape is None:
            return False
        if node.op_type == "Size":
            value = np.array(math.prod(shape), dtype=np.int64)
        else:
            try:
                read = shape[integer(node, "start", 0) : integer(node, "end", len(shape))]
            except NotUnderstoodError:
                return False
            value = np.array(read, dtype=np.int64)
        self._add_value(node.output[0], value)
        return True

    def _add_value(self, name: str, value: np.ndarray) -> None:
        self.weights.values[name] = value
        element_type = helper.np_dtype_to_tensor_dtype(value.dtype)
        self._shapes.add(name, element_type, value.shape)
