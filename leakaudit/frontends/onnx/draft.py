"""Our graph in making: what a builder adds, and how to take it back where the builder gives up."""

from __future__ import annotations

from collections.abc import Callable

from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.frontends.interface import layer_name
from leakaudit.frontends.onnx.weights import OnnxWeights
from leakaudit.graph import Node, Parameter, Tensor


class Draft:
    """Tensors, parameters and nodes so far.

    Attributes:
        tensors: Activations of the graph.
        parameters: Parameters of the graph.
        nodes: Nodes of the graph, in the order in which they can be computed.
    """

    def __init__(self, weights: OnnxWeights) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.parameters: dict[str, Parameter] = {}
        self.nodes: list[Node] = []
        self._weights = weights
        self._taken: set[str] = set()
        self._undo: list[Callable[[], object]] = []

    def attempt(self, build: Callable[[], None]) -> str | None:
        """Build; where that fails take back what it made, and give the reason."""
        outer, self._undo = self._undo, []
        try:
            build()
            return None
        except NotUnderstoodError as error:
            reason = str(error)
        # What Python and numpy raise for shapes and numbers that do not go together.
        except (ArithmeticError, LookupError, ValueError):
            reason = "its inputs and attributes do not fit each other"
        finally:
            undo, self._undo = self._undo, outer
        for take_back in reversed(undo):
            take_back()
        return reason

    def apart(self, build: Callable[[], None]) -> None:
        """Build inside an attempt what is to stay whatever becomes of the attempt."""
        outer, self._undo = self._undo, []
        try:
            build()
        finally:
            self._undo = outer

    def add_tensor(self, tensor: Tensor) -> None:
        """Add an activation."""
        self.tensors[tensor.name] = tensor
        self._undo.append(lambda: self.tensors.pop(tensor.name))

    def add_node(self, node: Node, weight: str | None) -> None:
        """Add a node under the name of its weight, or under its own where it has none."""
        name = layer_name(weight, node.name, self._taken)
        self._undo.append(lambda: self._taken.discard(name))
        made = Node(name, node.op, node.inputs, node.outputs, node.parameters, node.origin)
        self.nodes.append(made)
        self._undo.append(lambda: self.nodes.remove(made))

    def add_parameter(self, parameter: Parameter, stored_shape: tuple[int, ...] | None) -> None:
        """Add a parameter; one that is trained in one role is trained in every role.

        Raises:
            NotUnderstoodError: It is read under another shape already.
        """
        name = parameter.name
        known = self.parameters.get(name)
        if known is not None and known.shape != parameter.shape:
            raise NotUnderstoodError(f"{name!r} is read under two shapes")
        if known is not None and known.trainable:
            return
        self.parameters[name] = parameter
        if known is not None:
            self._undo.append(lambda: self.parameters.update({name: known}))
            return
        self._undo.append(lambda: self.parameters.pop(name))
        if parameter.shape != stored_shape:
            self._weights.shapes[name] = parameter.shape
            self._undo.append(lambda: self._weights.shapes.pop(name))
