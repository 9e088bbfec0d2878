"""The first pass over an ONNX model: what is constant, and the shape of everything else."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper

from leakaudit.errors import AuditError
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.frontends.onnx.file import is_default
from leakaudit.frontends.onnx.fold import FOLDABLE, FoldError, evaluate
from leakaudit.frontends.onnx.inline import branch, inline_branch
from leakaudit.frontends.onnx.inputs import FLOATS
from leakaudit.frontends.onnx.limits import REPAIR
from leakaudit.frontends.onnx.node import integer, own_name, reads
from leakaudit.frontends.onnx.shapes import ShapeInference
from leakaudit.frontends.onnx.weights import Computed, OnnxWeights
from leakaudit.sandbox.limits import Deadline

MAX_FOLDED_ELEMENTS = 65536
MAX_FOLDED_FLOATS = 16  # scales and sizes; larger ones are weights, computed only when read


class Scan:
    """Defines every value in order: folds what is constant, infers the shape of the rest.

    Nodes that depend on no activation are folded into the weights.

    Attributes:
        nodes: The nodes of the file, an If with a constant condition replaced by its branch.
        activations: What is computed and not constant.
        initializers: Names of stored tensors.
    """

    def __init__(
        self,
        path: str,
        graph: onnx.GraphProto,
        weights: OnnxWeights,
        shapes: ShapeInference,
        deadline: Deadline,
    ) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.activations: set[str] = set()
        self.initializers: list[str] = []
        self._path = path
        self._deadline = deadline
        self._weights = weights
        self._shapes = shapes
        self._pending = list(reversed(graph.node))
        self._sparse = {tensor.values.name for tensor in graph.sparse_initializer}
        self._later = {name for node in graph.node for name in node.output}
        for tensor in graph.initializer:
            self._store(tensor)

    def run(self) -> None:
        """Go through all nodes.

        Raises:
            AuditError: A node reads what no earlier node computes, or computes a name again, or
                it takes too long.
        """
        while self._pending:
            self._deadline.check()
            node = self._pending.pop()
            own = repr(own_name(len(self.nodes), node))
            for name in reads(node):
                if not self._shapes.known(name) and name not in self._sparse:
                    raise AuditError(
                        self._path, f"node {own} reads {name!r}, which is not computed yet", REPAIR
                    )
            for name in node.output:
                if self._shapes.known(name):
                    raise AuditError(self._path, f"{name!r} is computed twice", REPAIR)
            if node.op_type == "If" and is_default(node.domain) and self._expand(node):
                continue
            self.nodes.append(node)
            if not self._fold(node):
                self._shapes.infer(node, self._small_values(node))
                self.activations.update(name for name in node.output if name)

    def _store(self, tensor: onnx.TensorProto) -> None:
        if any(size < 0 for size in tensor.dims):
            raise AuditError(self._path, f"initializer {tensor.name!r} has a negative size", REPAIR)
        self._weights.stored[tensor.name] = tensor
        self._shapes.add(tensor.name, tensor.data_type, tensor.dims)
        self.initializers.append(tensor.name)

    def _expand(self, node: onnx.NodeProto) -> bool:
        """Put the branch of an If in its place; False where which one is decided at run time."""
        condition = self._small_values(node).get(node.input[0] if node.input else "")
        if condition is None or condition.size != 1:
            return False
        taken = branch(node, bool(condition.reshape(())))
        if taken is None or not any(node.output):
            return False
        nodes, tensors = inline_branch(
            node, taken, lambda name: self._shapes.known(name) or name in self._later
        )
        for tensor in tensors:
            self._store(tensor)
        self._later.update(name for inner in nodes for name in inner.output)
        self._pending.extend(reversed(nodes))
        return True

    # --- constants --------------------------------------------------------------------------------

    def _fold(self, node: onnx.NodeProto) -> bool:
        """Take the node's outputs into the weights; False where it has to stay a node."""
        if not is_default(node.domain):
            return False
        if node.op_type == "Constant":
            return self._fold_constant(node)
        if node.op_type in ("Shape", "Size") and len(node.input) == 1 and len(node.output) == 1:
            return self._fold_shape(node)
        node = self._explicit_cast(node)
        names = {name for name in node.input if name}
        if node.op_type not in FOLDABLE or not names or not all(n in self._weights for n in names):
            return False
        return self._fold_computed(node, names)

    def _small_values(self, node: onnx.NodeProto) -> dict[str, np.ndarray]:
        """The numbers of the small constants among a node's inputs."""
        found = {name: self._small_value(name) for name in node.input if name}
        return {name: value for name, value in found.items() if value is not None}

    def _small_value(self, name: str) -> np.ndarray | None:
        if name not in self._weights.values:
            if name not in self._weights.stored or not self._is_small([name]):
                return None
            self._weights.values[name] = self._weights.load(name)
        return self._weights.values[name]

    def _is_small(self, names: Iterable[str]) -> bool:
        return all(
            self._elements(name)
            <= (MAX_FOLDED_FLOATS if self._shapes.dtype(name) in FLOATS else MAX_FOLDED_ELEMENTS)
            for name in names
        )

    def _elements(self, name: str) -> int:
        return math.prod(self._shapes.shape(name) or ())

    def _fold_computed(self, node: onnx.NodeProto, names: set[str]) -> bool:
        values = self._small_values(node)
        self._shapes.infer(node, values)
        outputs = [name for name in node.output if name]
        if any(self._shapes.shape(name) is None for name in outputs):
            return False
        if self._is_small(outputs) and names == set(values):
            try:
                folded = evaluate(node, values, self._weights.opset)
            except FoldError:
                return False
            if any(value.shape != self._shapes.shape(name) for name, value in folded.items()):
                return False  # onnx's inference and evaluation disagree: believe neither
            for name, value in folded.items():
                self._add_value(name, value)
        elements = sum(self._elements(name) for name in outputs)
        for name in outputs:
            self._weights.computed[name] = Computed(node, elements)
        return True

    def _fold_constant(self, node: onnx.NodeProto) -> bool:
        if len(node.output) != 1 or len(node.attribute) != 1:
            return False
        name, entry = node.output[0], node.attribute[0]
        if entry.HasField("t"):
            self._weights.stored[name] = entry.t
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
        self._weights.values[name] = value
        element_type = helper.np_dtype_to_tensor_dtype(value.dtype)
        self._shapes.add(name, element_type, value.shape)
