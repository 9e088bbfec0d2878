"""What a builder of onnx_ops.py asks about a model, and how it makes the nodes of our graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx

from leakaudit.frontends.interface import LoadOptions, layer_name
from leakaudit.frontends.onnx_constants import FLOATS
from leakaudit.frontends.onnx_node import NotUnderstoodError, kind, own_name, reads
from leakaudit.frontends.onnx_shapes import ShapeInference
from leakaudit.frontends.onnx_weights import OnnxWeights
from leakaudit.graph import Node, Parameter, Tensor
from leakaudit.graph.operators import Operator, Unsupported

# Operators whose output holds elements of their first input, each once: the gradient of the one
# is the gradient of the other, rearranged.
REARRANGING = frozenset(
    {
        "Cast",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)


class Context:
    """A model with concrete inputs, and the graph in making.

    Attributes:
        opset: Version of the standard operators.
        activations: Names of values that depend on the input or on something not understood.
        tensors: Activations of the graph.
        parameters: Parameters of the graph.
        absorbed: Indices of nodes of the file that became part of another node.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        shapes: ShapeInference,
        weights: OnnxWeights,
        options: LoadOptions,
    ) -> None:
        self.opset = weights.opset
        self.activations: set[str] = set()
        self.tensors: dict[str, Tensor] = {}
        self.parameters: dict[str, Parameter] = {}
        self.absorbed: set[int] = set()
        self._shapes = shapes
        self._weights = weights
        self._options = options
        self._taken: set[str] = set()
        self._initializers = {tensor.name for tensor in graph.initializer}
        self._outputs = {value.name for value in graph.output}
        self._nodes = list(graph.node)
        self._names = {
            tuple(node.output): own_name(index, node) for index, node in enumerate(self._nodes)
        }
        self._readers: dict[str, list[int]] = {}
        for index, node in enumerate(self._nodes):
            for name in reads(node):
                self._readers.setdefault(name, []).append(index)

    # --- questions --------------------------------------------------------------------------------

    def activation(self, node: onnx.NodeProto, index: int) -> str:
        """The name of an input that must be an activation of known shape."""
        name = self.optional(node, index)
        if name is None:
            raise NotUnderstoodError(f"its input {index} is missing")
        if name not in self.activations:
            raise NotUnderstoodError(f"its input {index} is a constant")
        self.shape(name)
        return name

    def optional(self, node: onnx.NodeProto, index: int) -> str | None:
        """The name of an input, or None where the node leaves it out."""
        return (node.input[index] or None) if index < len(node.input) else None

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value that must be known."""
        shape = self._shapes.shape(name)
        if shape is None:
            raise NotUnderstoodError(f"the shape of {name!r} is not known")
        return shape

    def flag(self, name: str) -> bool | None:
        """The truth value of a constant, or None where it is decided at run time."""
        if name not in self._weights or self.shape(name) not in ((), (1,)):
            return None
        return bool(self._weights.load(name).reshape(()))

    def only_reader(self, name: str) -> tuple[int, onnx.NodeProto] | None:
        """The one node that reads this value, with its index; None where it has other uses."""
        readers = self._readers.get(name, [])
        if len(readers) != 1 or name in self._outputs:
            return None
        return readers[0], self._nodes[readers[0]]

    def is_stored(self, name: str) -> bool:
        """Whether this value is a constant of floating-point numbers."""
        return name in self._weights and self._shapes.dtype(name) in FLOATS

    # --- parameters -------------------------------------------------------------------------------

    def weight(self, name: str | None, role: str = "weight") -> Parameter:
        """A constant in the role of a weight, which training changes.

        Its numbers must stand in the file, or be numbers of the file rearranged that nothing else
        reads: only then is the gradient that a client sends the gradient of this weight.
        """
        if name is None or name not in self._weights:
            raise NotUnderstoodError(f"its {role} is computed at run time")
        dtype = self._shapes.dtype(name)
        if dtype not in FLOATS:
            raise NotUnderstoodError(f"its {role} is of type {dtype}")
        lineage = self._lineage(name)
        if lineage is None or any(self._shapes.dtype(entry) not in FLOATS for entry in lineage):
            raise NotUnderstoodError(f"its {role} is computed from other parameters")
        frozen = any(self._options.is_frozen(entry) for entry in lineage)
        if not frozen and any(self.only_reader(entry) is None for entry in lineage[1:]):
            raise NotUnderstoodError(
                f"its {role} is a view of {lineage[-1]!r}, which other nodes read too"
            )
        return Parameter(name, self.shape(name), dtype, not frozen, not frozen)

    def operand(self, name: str) -> Parameter:
        """A constant in any other role. Of these, numbers of Constant nodes are not trained."""
        dtype = self._shapes.dtype(name)
        lineage = self._lineage(name) or ()
        trainable = (
            all(self._shapes.dtype(entry) in FLOATS for entry in lineage)
            and any(entry in self._initializers for entry in lineage[-1:])
            and not any(self._options.is_frozen(entry) for entry in lineage)
        )
        return Parameter(name, self.shape(name), dtype, trainable, trainable)

    def _lineage(self, name: str) -> tuple[str, ...] | None:
        """From a constant back to where its numbers stand; None where they are calculated.

        ConstantOfShape counts as a place where numbers stand: models without weights use it so.
        """
        found = [name]
        while (computed := self._weights.computed.get(found[-1])) is not None:
            if computed.node.op_type == "ConstantOfShape":
                break
            if computed.node.op_type not in REARRANGING:
                return None
            found.append(computed.node.input[0])
        return tuple(found)

    # --- making nodes -----------------------------------------------------------------------------

    def layer(
        self,
        node: onnx.NodeProto,
        op: Operator,
        inputs: Sequence[str],
        parameters: Sequence[tuple[str, Parameter]] = (),
        *,
        output: str | None = None,
        origin: str | None = None,
    ) -> tuple[Node, ...]:
        """Make one node with one output, named after its weight.

        Raises:
            NotUnderstoodError: The output's shape is not known, another output of the node is
                used, or a parameter is already read under another shape.
        """
        name = output or node.output[0]
        self.shape(name)
        if any(other in self._readers or other in self._outputs for other in node.output[1:]):
            raise NotUnderstoodError("more than its first output is used")
        for _, parameter in parameters:
            self._register(parameter)
        self._add_tensor(name)
        return (
            Node(
                layer_name(
                    self._weight_name(parameters), self._names[tuple(node.output)], self._taken
                ),
                op,
                tuple(inputs),
                (name,),
                tuple((role, parameter.name) for role, parameter in parameters),
                origin or kind(node),
            ),
        )

    def _weight_name(self, parameters: Sequence[tuple[str, Parameter]]) -> str | None:
        """The weight's name, as PyTorch would give it where an exporter kept only the bias's."""
        roles = {role: parameter.name for role, parameter in parameters}
        weight = (self._lineage(roles["weight"]) or ("",))[-1] if "weight" in roles else None
        bias = roles.get("bias", "")
        if weight is not None and not weight.endswith(".weight") and bias.endswith(".bias"):
            return bias.removesuffix(".bias") + ".weight"
        return weight

    def unsupported(self, node: onnx.NodeProto, reason: str) -> Node:
        """Make the node that stands for an operator that is not understood.

        It lists its stored floating-point inputs as parameters: they are trained, and a parameter
        that another layer reads too has the sum of two gradients.
        """
        inputs: list[str] = []
        parameters: list[tuple[str, str]] = []
        for index, name in enumerate(dict.fromkeys(reads(node))):
            if name in self.activations:
                inputs.append(name)
            elif self.is_stored(name):
                if name not in self.parameters:
                    self.parameters[name] = self.operand(name)
                parameters.append((f"input{index}", name))
        outputs = tuple(name for name in node.output if name)
        for name in outputs:
            self._add_tensor(name)
        return Node(
            layer_name(None, self._names[tuple(node.output)], self._taken),
            Unsupported(kind(node), reason),
            tuple(inputs),
            outputs,
            tuple(parameters),
            kind(node),
        )

    def _register(self, parameter: Parameter) -> None:
        known = self.parameters.get(parameter.name)
        if known is not None and known.shape != parameter.shape:
            raise NotUnderstoodError(f"{parameter.name!r} is read under two shapes")
        if known is not None and known.trainable:
            return
        self.parameters[parameter.name] = parameter
        if parameter.shape != self._shapes.shape(parameter.name):
            self._weights.shapes[parameter.name] = parameter.shape

    def _add_tensor(self, name: str) -> None:
        self.activations.add(name)
        self.tensors[name] = Tensor(name, self._shapes.shape(name) or (), self._shapes.dtype(name))


def reshaped(parameter: Parameter, shape: tuple[int, ...]) -> Parameter:
    """The parameter under a shape of the same number of elements."""
    return replace(parameter, shape=shape)
