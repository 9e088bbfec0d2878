"""The model graph that every later stage reads: tensors, parameters, nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeVar

Array = Any  # numpy.ndarray; numpy is not imported here, a graph alone holds no numbers
Shape = tuple[int, ...]
Followed = tuple["Operator", Mapping[str, Shape], Shape]  # with shapes of parameters and output
# What the faces of an operator speak in comes after the graph, which knows the names alone.
Derivation = Any  # leakaudit.facts.fact.Derivation
Knowledge = Any  # leakaudit.facts.knowledge.Knowledge
GradientRank = Any  # leakaudit.facts.gradient_rank.GradientRank
Geometry = Any  # leakaudit.counting.geometry.ConvolutionGeometry

Method = TypeVar("Method", bound=Callable[..., Any])
_FACES: set[str] = set()


class WeightSource(Protocol):
    """Reads stored numbers when something needs them, never before."""

    def load(self, name: str) -> Array:
        """Return parameter `name` as a numpy array of the shape and dtype the graph states.

        Raises:
            AuditError: The numbers are missing or unreadable.
        """
        ...


def face(method: Method) -> Method:
    """Mark a method or property of a base class that every operator below it has to state."""
    _FACES.add(method.__qualname__)
    return method


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator holds hyperparameters only; the `Node` that applies it names tensors.

    Its static faces are methods, stated in its class: an operator that leaves one out is an error
    where it is defined, never a default. A base class for several says `abstract = True`.

    Attributes:
        is_layer: It is a layer whose weight gradients are counted as equations for its input.
        is_convolution: It is such a layer, and its input may be a picture.
        is_activation: It is a function of each element by itself.
        only_rearranges: Its output holds the elements of its one input, each once, and no others.
        any_size: Its meaning does not depend on the sizes of what it reads.
        channel_axis: Of a layer's output, where the channels (features) stand; None: no layer.
        unread: Which quality (`leakaudit.facts.fact.Quality`) of an input says that it is unknown
            only where this operator reads nothing; None: it reads everything.
    """

    abstract: ClassVar[bool] = True
    is_layer: ClassVar[bool] = False
    is_convolution: ClassVar[bool] = False
    is_activation: ClassVar[bool] = False
    only_rearranges: ClassVar[bool] = False
    any_size: ClassVar[bool] = False
    channel_axis: ClassVar[int | None] = None
    unread: ClassVar[Any] = None

    def __init_subclass__(cls) -> None:
        """Refuse an operator that does not state all of its faces.

        Raises:
            TypeError: One is missing.
        """
        if "abstract" in vars(cls):
            return
        members = {name: getattr(cls, name, None) for name in dir(cls)}
        missing = [
            name
            for name, member in members.items()
            if getattr(getattr(member, "fget", member), "__qualname__", "") in _FACES
        ]
        if missing:
            raise TypeError(f"the operator {cls.__name__} does not state: {', '.join(missing)}")

    @face
    def output_shapes(
        self, inputs: Sequence[Shape], parameters: Mapping[str, Shape], stated: Sequence[Shape]
    ) -> Sequence[Shape]:
        """Compute the shapes of the outputs.

        Args:
            inputs: Shapes of what it reads.
            parameters: Shapes of its parameters by role.
            stated: Shapes of its outputs as the file states them; operators without a shape of
                their own (Reshape, Resize) take these where they fit.

        Raises:
            ValueError: The operator does not fit its inputs.
            IndexError: The same.
        """
        raise NotImplementedError

    @face
    def derive(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        """Yield the operator's own derivations whose premises hold.

        Only a node that reads an activation is asked. What holds for every operator
        (`leakaudit.facts.general`) is not repeated here.
        """
        raise NotImplementedError

    def parameter_gradients(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        """Yield gradients of outputs that the gradients of stored inputs show."""
        return iter(())

    @face
    def stop(self, node: Node, known: Knowledge) -> str | None:
        """Say why the path ends at `node`, or None where the node passes everything on."""
        raise NotImplementedError

    @face
    def gradient_bound(
        self, graph: Graph, node: Node, index: int, outputs: Sequence[GradientRank]
    ) -> GradientRank | None:
        """Bound the part of dl/dx that flows back through the node.

        Args:
            graph: For the shapes.
            node: Where x is read.
            index: x is `node.inputs[index]`.
            outputs: The bounds on the gradients of its outputs, none of which is empty.

        Returns:
            None where nothing is known to limit it.
        """
        raise NotImplementedError

    def follow(
        self,
        old: Sequence[Shape],
        new: Sequence[Shape],
        parameters: Mapping[str, Shape],
        stated: Sequence[Shape],
        width: int | None = None,
    ) -> Followed:
        """Go along with a change of what it reads, where its meaning does not depend on the sizes.

        Args:
            old: Shapes of its inputs before the change.
            new: The same after it.
            parameters: Shapes of its parameters by role, before the change.
            stated: Shapes of its outputs, before the change.
            width: A layer's new number of filters or outputs, None where it stays.

        Returns:
            The operator with its new hyperparameters, the shapes of the parameters that follow,
            and of its output.

        Raises:
            NotImplementedError: Its meaning depends on the sizes, or may.
            ValueError: It does not allow the change; the text says why, behind the node's name.
        """
        if not self.any_size:
            raise NotImplementedError
        return self, {}, self.output_shapes(new, parameters, stated)[0]

    def hyperparameters(self, graph: Graph, node: Node) -> dict[str, object]:
        """The design of the layer as plain JSON values, for `is_layer` only."""
        raise TypeError(f"{type(self).__name__} has no weights to count")

    def geometry(self, source: Shape, weight: Shape) -> Geometry:
        """The layer as counting sees it, for `is_layer` only.

        Args:
            source: Shape of its input.
            weight: Shape of its weight.
        """
        raise TypeError(f"{type(self).__name__} has no weights to count")


@dataclass(frozen=True, slots=True)
class Unsupported(Operator):
    """An operator that is not understood: it stops every path and makes the audit incomplete.

    Attributes:
        kind: The operator as the file names it, e.g. `com.microsoft::FusedMatMul`.
        reason: Why it is not understood.
    """

    kind: str
    reason: str

    def output_shapes(
        self, inputs: Sequence[Shape], parameters: Mapping[str, Shape], stated: Sequence[Shape]
    ) -> Sequence[Shape]:
        """Nothing is known of it: whatever is stated does not fit."""
        raise ValueError(f"the output shape of {self.kind} is not known")

    def derive(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        """Nothing follows."""
        return iter(())

    def stop(self, node: Node, known: Knowledge) -> str | None:
        """It always stops the path."""
        return f"unsupported operator {self.kind}: {self.reason}"

    def gradient_bound(
        self, graph: Graph, node: Node, index: int, outputs: Sequence[GradientRank]
    ) -> GradientRank | None:
        """Nothing is known."""
        return None


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

    def shape(self, name: str) -> Shape:
        """The shape of a tensor or parameter."""
        return (self.tensors.get(name) or self.parameters[name]).shape

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
