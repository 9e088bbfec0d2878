"""The model graph that every later stage reads: tensors, parameters, nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

Array = Any  # numpy.ndarray; numpy is not imported here, a graph alone holds no numbers


class WeightSource(Protocol):
    """Reads stored numbers when something needs them, never before."""

    def load(self, name: str) -> Array:
        """Return parameter `name` as a numpy array of the shape and dtype the graph states.

        Raises:
            AuditError: The numbers are missing or unreadable.
        """
        ...


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator holds hyperparameters only; the `Node` that applies it names tensors."""


@dataclass(frozen=True, slots=True)
class Unsupported(Operator):
    """An operator that is not understood: it stops every path and makes the audit incomplete.

    Attributes:
        kind: The operator as the file names it, e.g. `com.microsoft::FusedMatMul`.
        reason: Why it is not understood.
    """

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Tensor:
    """An activation: a graph input or the output of a node.

    Attributes:
        name: Unique in the graph.
        shape: Concrete sizes, batch first where there is a batch.
        dtype: A numpy dtype name (`float32`, `int64`, `bfloat16`, ...).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """Stored numbers. `trainable` ones send their gradient; buffers and constants do not.

    `trainable_assumed` is set where the file format cannot say so (ONNX initializers).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool
    trainable_assumed: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """One application of an operator.

    Attributes:
        name: The layer's name for the user, unique in the graph.
        op: The operator with its hyperparameters.
        inputs: Names of tensors; for arithmetic also of parameters.
        outputs: Names of tensors.
        parameters: Pairs (role, parameter name); roles are stated by the operator.
        origin: The operator in the file's own words, e.g. `Conv` or `aten.conv2d.default`.
    """

    name: str
    op: Operator
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...] = ()
    origin: str = ""

    def parameter(self, role: str) -> str | None:
        """Return the name of the parameter in this role, or None."""
        return dict(self.parameters).get(role)


@dataclass(frozen=True, slots=True)
class Use:
    """A tensor read by a node: `node.inputs[index]`."""

    node: Node
    index: int


@dataclass(frozen=True)
class Graph:
    """A network for one batch. Nodes stand in an order in which they can be computed.

    `notes` says what a reader of the report has to know of how the network was read.
    """

    name: str
    format: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    parameters: Mapping[str, Parameter]
    nodes: tuple[Node, ...]
    weights: WeightSource = field(compare=False, repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that computes each tensor; graph inputs have none."""
        return {output: node for node in self.nodes for output in node.outputs}

    @cached_property
    def uses(self) -> Mapping[str, tuple[Use, ...]]:
        """Every place where a tensor is read."""
        found: dict[str, list[Use]] = {name: [] for name in self.tensors}
        for node in self.nodes:
            for index, name in enumerate(node.inputs):
                if name in found:
                    found[name].append(Use(node, index))
        return {name: tuple(uses) for name, uses in found.items()}

    @cached_property
    def parameter_uses(self) -> Mapping[str, int]:
        """How often each parameter is read. The gradient of a shared one is a sum over its uses."""
        count = dict.fromkeys(self.parameters, 0)
        for node in self.nodes:
            for name in (*node.inputs, *(name for _, name in node.parameters)):
                if name in count:
                    count[name] += 1
        return count

    @cached_property
    def depend_on_inputs(self) -> frozenset[str]:
        """Tensors that say something about the inputs; the others follow from the weights alone.

        What an operator that is not understood reads is not known for sure: its outputs count.
        """
        found = set(self.inputs)
        for node in self.nodes:
            if isinstance(node.op, Unsupported) or found.intersection(node.inputs):
                found.update(node.outputs)
        return frozenset(found)

    def node(self, name: str) -> Node:
        """Return the node of this name.

        Raises:
            KeyError: There is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)
