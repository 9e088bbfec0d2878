"""What a builder of the operator table asks about a model, and how it makes nodes of our graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import onnx

from leakaudit.frontends.build import MAX_MASK_ELEMENTS, NotUnderstoodError
from leakaudit.frontends.interface import LoadOptions, require_shape
from leakaudit.frontends.onnx.draft import Draft
from leakaudit.frontends.onnx.inputs import FLOATS
from leakaudit.frontends.onnx.node import kind, own_name, reads
from leakaudit.frontends.onnx.parameters import Origins
from leakaudit.frontends.onnx.scan import MAX_FOLDED_ELEMENTS, Scan
from leakaudit.frontends.onnx.shapes import ShapeInference
from leakaudit.frontends.onnx.weights import OnnxWeights, in_order
from leakaudit.graph import Node, Parameter, Tensor
from leakaudit.operators import Identity, Operator, Scale, Unsupported

Builder = Callable[["Context", onnx.NodeProto], None]
Builders = Mapping[str, Builder]
Roles = Sequence[tuple[str, Parameter]]

# What may be moved about. Arithmetic, and all that gradients flow through, is floating.
MOVABLE = FLOATS | {"bool", "int8", "int16", "int32", "int64", "uint8"}


class Context:
    """A model with concrete inputs, and the graph in making.

    Attributes:
        opset: Version of the standard operators.
        draft: The graph in making.
        activations: Names of values that depend on the input or on something not understood.
        absorbed: Indices of nodes of the file that became part of another node.
    """

    def __init__(
        self,
        scan: Scan,
        outputs: Iterable[str],
        shapes: ShapeInference,
        weights: OnnxWeights,
        options: LoadOptions,
        convert: Builder,
    ) -> None:
        self.opset = weights.opset
        self.draft = Draft(weights)
        self.activations = scan.activations
        self.absorbed: set[int] = set()
        self._shapes = shapes
        self._weights = weights
        self._origins = Origins(scan.initializers, weights, shapes, options)
        self._convert = convert
        self._limits = options.limits
        self._tracing = False
        self._outputs = set(outputs)
        self._nodes = scan.nodes
        self._names = {
            tuple(node.output): own_name(index, node) for index, node in enumerate(scan.nodes)
        }
        self._readers: dict[str, list[int]] = {}
        for index, node in enumerate(scan.nodes):
            for name in reads(node):
                self._readers.setdefault(name, []).append(index)

    def activation(
        self, node: onnx.NodeProto, index: int, allowed: frozenset[str] = MOVABLE
    ) -> str:
        """The name of an input that must be an activation, of a known shape and allowed type."""
        name = self._required(node, index)
        if not self.is_activation(name):
            if not self._tracing:
                raise NotUnderstoodError(f"its input {index} is a constant")
            return self.operand(node, index)
        self._check_type(name, allowed)
        return name

    def real(self, node: onnx.NodeProto, index: int) -> str:
        """The name of an input that must be an activation of floating type."""
        return self.activation(node, index, FLOATS)

    def _required(self, node: onnx.NodeProto, index: int) -> str:
        name = self.optional(node, index)
        if name is None:
            raise NotUnderstoodError(f"its input {index} is missing")
        self.shape(name)
        return name

    def _check_type(self, name: str, allowed: frozenset[str]) -> None:
        dtype = self.dtype(name)
        if dtype not in allowed:
            raise NotUnderstoodError(f"{name!r} is of type {dtype}")

    def optional(self, node: onnx.NodeProto, index: int) -> str | None:
        """The name of an input, or None where the node leaves it out."""
        return (node.input[index] or None) if index < len(node.input) else None

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value that must be known."""
        if name in self.draft.tensors:
            return self.draft.tensors[name].shape
        if name in self.draft.parameters and self._shapes.shape(name) is None:
            return self.draft.parameters[name].shape
        return self._shapes.required(name)

    def dtype(self, name: str) -> str:
        """The numpy name of a value's type."""
        made = self.draft.tensors.get(name)
        return self._shapes.dtype(name) if made is None else made.dtype

    def constant(self, node: onnx.NodeProto, index: int) -> np.ndarray | None:
        """The numbers of an input that must be a small constant, None where it is left out."""
        name = self.optional(node, index)
        if name is None:
            return None
        if name not in self._weights:
            raise NotUnderstoodError(f"its input {index} is computed at run time")
        if math.prod(self.shape(name)) > MAX_FOLDED_ELEMENTS:
            raise NotUnderstoodError(f"its input {index} is too large for what it says")
        return self._weights.load(name)

    def array(self, node: onnx.NodeProto, index: int) -> np.ndarray:
        """The numbers of an input that must be a constant of any size that fits a mask."""
        array = self.stored(node, index)
        if array is None:
            raise NotUnderstoodError(f"its input {index} is computed at run time, or too large")
        return array

    def stored(self, node: onnx.NodeProto, index: int) -> np.ndarray | None:
        """The numbers of an input that is a constant of any size that fits a mask, else None."""
        name = self._required(node, index)
        if name not in self._weights or math.prod(self.shape(name)) > MAX_MASK_ELEMENTS:
            return None
        return self._weights.load(name)

    def is_plain(self, name: str) -> bool:
        """Whether a constant is not trained, or a single number that it makes no sense to train."""
        if self.is_activation(name) or name not in self._weights:
            return False
        return math.prod(self.shape(name)) == 1 or not self._origins.is_trained(name)

    def integers(self, node: onnx.NodeProto, index: int) -> tuple[int, ...] | None:
        """An input that must be a constant list of integers, None where it is left out."""
        array = self.constant(node, index)
        if array is None:
            return None
        if array.dtype.kind not in "iu":
            raise NotUnderstoodError(f"its input {index} does not hold integers")
        return tuple(int(number) for number in array.reshape(-1))

    def number(self, node: onnx.NodeProto, index: int) -> float | None:
        """An input that must be one constant number, None where it is left out."""
        array = self.constant(node, index)
        if array is None:
            return None
        if array.size != 1 or array.dtype.kind not in "fiub":
            raise NotUnderstoodError(f"its input {index} is not one number")
        return float(array.reshape(()))

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

    def is_activation(self, name: str | None) -> bool:
        """Whether a node of the graph makes this value, or it is an input."""
        return name in self.activations or name in self.draft.tensors

    def is_stored(self, name: str) -> bool:
        """Whether this value is a constant of floating-point numbers."""
        in_file = name in self._weights and self._shapes.dtype(name) in FLOATS
        return in_file and not self.is_activation(name)

    # --- parameters -------------------------------------------------------------------------------

    def weight(self, name: str | None, role: str = "weight") -> Parameter:
        """A constant in the role of a weight, which training changes.

        Its numbers must stand in the file, or be numbers of the file rearranged that nothing else
        reads: only then is the gradient that a client sends the gradient of this weight.
        """
        if name is None or name not in self._weights:
            raise NotUnderstoodError(f"its {role} is computed at run time")
        parameter, lineage = self._origins.as_weight(name, role)
        shared = any(
            self.only_reader(entry) is None or entry in self.draft.parameters
            for entry in lineage[1:]
        )
        if parameter.trainable and (shared or self.is_activation(name)):
            raise NotUnderstoodError(
                f"its {role} is a view of {lineage[-1]!r}, which other nodes read too"
            )
        return parameter

    def transposed_weight(self, name: str) -> Parameter | None:
        """The stored matrix whose transpose this constant is, None where it is anything else."""
        lineage = self._origins.lineage(name) or ()
        if len(lineage) != 2 or self._origins.rearranges(name) != "Transpose":
            return None
        return self.weight(lineage[1]) if len(self.shape(name)) == 2 else None

    def statistic(self, name: str | None, role: str) -> Parameter:
        """A constant that the network collects and that no gradient changes."""
        return replace(self.weight(name, role), trainable=False, trainable_assumed=False)

    def operand(self, node: onnx.NodeProto, index: int) -> str:
        """The name of an input of arithmetic: an activation or a parameter of floating type.

        Where it is computed from trained parameters, the nodes that do so are made first: their
        gradient is a gradient that a client sends.
        """
        return self._named(node, index, FLOATS)

    def movable(self, node: onnx.NodeProto, index: int) -> str:
        """The name of an input, activation or constant, of any type that can be moved about."""
        return self._named(node, index, MOVABLE)

    def _named(self, node: onnx.NodeProto, index: int, allowed: frozenset[str]) -> str:
        name = self._required(node, index)
        self._check_type(name, allowed)
        self._trace(name)
        known = self.draft.parameters.get(name)
        if known is not None and known.shape != self.shape(name):
            raise NotUnderstoodError(f"{name!r} is read under two shapes")
        if not self._is_made(name):
            parameter = self._origins.as_operand(name)
            self.draft.add_parameter(parameter, self._shapes.shape(name))
        return name

    def _is_made(self, name: str) -> bool:
        return self.is_activation(name) or name in self.draft.parameters

    def _is_derived(self, name: str) -> bool:
        """Whether a constant is computed from trained parameters."""
        return self._origins.is_trained(name) and not self._origins.is_source(name)

    def _trace(self, name: str) -> None:
        """Turn the nodes that compute a constant from trained parameters into nodes of the graph.

        They stay even where the node that asked is not understood: it still reads what they make.
        """
        for current in in_order(name, self._derived_sources, self._needs_no_node):
            self._tracing = True
            self.draft.apart(partial(self._convert, self, self._weights.computed[current].node))
            self._tracing = False

    def _derived_sources(self, name: str) -> list[str]:
        return [entry for entry in self._weights.computed[name].node.input if entry]

    def _needs_no_node(self, name: str) -> bool:
        return self._is_made(name) or not self._is_derived(name)

    # --- making nodes -----------------------------------------------------------------------------

    def layer(
        self,
        node: onnx.NodeProto,
        op: Operator,
        inputs: Sequence[str],
        parameters: Roles = (),
        *,
        output: str | None = None,
        origin: str | None = None,
        outputs: int = 1,
    ) -> None:
        """Make the node that gives the file's node's outputs, named after its weight.

        Raises:
            NotUnderstoodError: An output's shape is not known, another output of the node is
                used, or a parameter is already read under another shape.
        """
        names = [output] if output else list(node.output[:outputs])
        made = [Tensor(name, self.shape(name), self._shapes.dtype(name)) for name in names]
        if any(other in self._readers or other in self._outputs for other in node.output[outputs:]):
            raise NotUnderstoodError("more than its first output is used")
        self._make(node, op, inputs, made, parameters, origin=origin)

    def step(
        self,
        node: onnx.NodeProto,
        what: str,
        op: Operator,
        inputs: Sequence[str],
        shape: Sequence[int],
        parameters: Roles = (),
    ) -> str:
        """Make a node on the way to the file's node's output, and give the tensor's name."""
        name = self._new_name(node, what)
        made = Tensor(name, tuple(shape), self._shapes.dtype(node.output[0]))
        self._make(node, op, inputs, [made], parameters, what=f"/{what}")
        return name

    def same(self, node: onnx.NodeProto, x: str) -> None:
        """Make the node that gives x itself."""
        self.layer(node, Identity(), (x,))

    def affine(self, node: onnx.NodeProto, x: str, factor: float, offset: float = 0.0) -> None:
        """Make the node that gives factor · x + offset."""
        self.layer(node, Scale(factor, offset), (x,))

    def scaled(
        self, node: onnx.NodeProto, what: str, x: str, factor: float, offset: float = 0.0
    ) -> str:
        """factor · x + offset on the way to the output, which is x itself for 1 and 0."""
        if (factor, offset) == (1, 0):
            return x
        return self.step(node, what, Scale(factor, offset), (x,), self.shape(x))

    def new_constant(self, node: onnx.NodeProto, what: str, array: np.ndarray) -> str:
        """Numbers that the file states in another way, as a parameter that is not trained."""
        name = self._new_name(node, what)
        self._weights.values[name] = array
        self.draft.add_parameter(Parameter(name, array.shape, array.dtype.name, False), array.shape)
        return name

    def _new_name(self, node: onnx.NodeProto, what: str) -> str:
        name = f"{node.output[0]}/{what}"
        while name in self.draft.tensors or name in self._weights or self._shapes.known(name):
            name += "'"
        return name

    def _make(
        self,
        node: onnx.NodeProto,
        op: Operator,
        inputs: Sequence[str],
        outputs: Sequence[Tensor],
        parameters: Roles,
        *,
        what: str = "",
        origin: str | None = None,
    ) -> None:
        for _, parameter in parameters:
            self.draft.add_parameter(parameter, self._shapes.shape(parameter.name))
        for tensor in outputs:
            # A few bytes of a file can ask for any size.
            if not isinstance(op, Unsupported):
                require_shape(self._weights.target, tensor.name, tensor.shape, self._limits)
            self.draft.add_tensor(tensor)
        made = Node(
            self._names[tuple(node.output)] + what,
            op,
            tuple(inputs),
            tuple(tensor.name for tensor in outputs),
            tuple((role, parameter.name) for role, parameter in parameters),
            origin or kind(node),
        )
        self.draft.add_node(made, self._weight_name(parameters))

    def _weight_name(self, parameters: Roles) -> str | None:
        """The weight's name, as PyTorch would give it where an exporter kept only the bias's."""
        roles = {role: parameter.name for role, parameter in parameters}
        first = roles.get("weight") or roles.get("scale")
        weight = (self._origins.lineage(first) or ("",))[-1] if first else None
        bias = roles.get("bias", "")
        if weight is not None and not weight.endswith(".weight") and bias.endswith(".bias"):
            return bias.removesuffix(".bias") + ".weight"
        return weight

    def unsupported(self, node: onnx.NodeProto, reason: str) -> None:
        """Make the node that stands for an operator that is not understood.

        It lists the stored floating-point numbers that its inputs follow from as parameters: they
        are trained, and a parameter that another layer reads too has the sum of two gradients.
        """
        inputs: list[str] = []
        stored: dict[str, None] = {}
        for name in dict.fromkeys(reads(node)):
            if self.is_activation(name):
                inputs.append(name)
            elif name in self.draft.parameters:
                stored[name] = None
            elif self.is_stored(name):
                stored.update(dict.fromkeys(self._origins.roots(name) or (name,)))
        parameters = [
            (f"input{index}", self.draft.parameters.get(name) or self._origins.as_operand(name))
            for index, name in enumerate(stored)
        ]
        made = filter(None, node.output)
        outputs = [Tensor(y, self._shapes.shape(y) or (), self._shapes.dtype(y)) for y in made]
        op = Unsupported(kind(node), reason)
        self._make(node, op, inputs, outputs, parameters)
