"""The first pass over an ONNX model: what is constant, and the shape of everything else."""

from __future__ import annotations

import onnx

from leakaudit.errors import AuditError
from leakaudit.frontends.onnx.constants import Constants
from leakaudit.frontends.onnx.file import is_default
from leakaudit.frontends.onnx.inline import branch, inline_branch
from leakaudit.frontends.onnx.limits import REPAIR
from leakaudit.frontends.onnx.node import own_name, reads
from leakaudit.frontends.onnx.shapes import ShapeInference
from leakaudit.frontends.onnx.weights import OnnxWeights
from leakaudit.sandbox.limits import Deadline


class Scan:
    """Defines every value in order: folds what is constant, infers the shape of the rest.

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
        self._constants = Constants(weights, shapes)
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
            if not self._constants.fold(node):
                self._shapes.infer(node, self._constants.small_values(node))
                self.activations.update(name for name in node.output if name)

    def _store(self, tensor: onnx.TensorProto) -> None:
        if any(size < 0 for size in tensor.dims):
            raise AuditError(self._path, f"initializer {tensor.name!r} has a negative size", REPAIR)
        self._weights.stored[tensor.name] = tensor
        self._shapes.add(tensor.name, tensor.data_type, tensor.dims)
        self.initializers.append(tensor.name)

    def _expand(self, node: onnx.NodeProto) -> bool:
        """Put the branch of an If in its place; False where which one is decided at run time."""
        condition = self._constants.small_values(node).get(node.input[0] if node.input else "")
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
