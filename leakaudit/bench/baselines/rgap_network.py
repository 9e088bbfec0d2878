"""Which networks R-GAP applies to: a chain of bias-free layers with LeakyReLU, one output."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from leakaudit.graph import Graph, Node
from leakaudit.operators import LeakyRelu, Linear, Reshape
from leakaudit.operators.convolution import Grouped


class NotApplicable(Exception):
    """The method is not defined for this network; the text says what stands against it."""


@dataclass(frozen=True, slots=True)
class HiddenLayer:
    """A convolution or dense layer with the slope of the LeakyReLU behind it."""

    node: Node
    slope: float


@dataclass(frozen=True, slots=True)
class BiasFreeNetwork:
    """Hidden layers from the input onwards, then the head with its one output."""

    hidden: tuple[HiddenLayer, ...]
    head: Node


def read_network(graph: Graph, gradients: Collection[str], loss: str) -> BiasFreeNetwork:
    """Take the chain apart.

    Args:
        graph: The network.
        gradients: Names of the parameters whose gradient is observed.
        loss: Of the client.

    Raises:
        NotApplicable: R-GAP is not defined for it.
    """
    if loss != "bce":
        raise NotApplicable(f"R-GAP needs the logistic loss, not {loss}")
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise NotApplicable("R-GAP needs one input and one output")
    if graph.tensors[graph.inputs[0]].shape[0] != 1:
        raise NotApplicable("R-GAP needs a batch of one example")
    hidden: list[HiddenLayer] = []
    pending: Node | None = None
    current = graph.inputs[0]
    for node in graph.nodes:
        if node.inputs != (current,):
            raise NotApplicable(f"{node.name}: R-GAP needs a chain of layers")
        (current,) = node.outputs
        if node.op.is_layer:
            if pending is not None:
                raise NotApplicable(f"{pending.name}: R-GAP needs a LeakyReLU behind every layer")
            _check_layer(graph, node, gradients)
            pending = node
            continue
        match node.op:
            case LeakyRelu(slope) if pending is not None and slope > 0:
                hidden.append(HiddenLayer(pending, slope))
                pending = None
            case Reshape():
                pass
            case _:
                kind = type(node.op).__name__
                raise NotApplicable(f"{node.name}: R-GAP knows no {kind} here")
    if pending is None or not isinstance(pending.op, Linear):
        raise NotApplicable("R-GAP needs a dense head")
    if pending.op.out_features != 1:
        raise NotApplicable(f"{pending.name}: R-GAP needs one output")
    return BiasFreeNetwork(tuple(hidden), pending)


def _check_layer(graph: Graph, node: Node, gradients: Collection[str]) -> None:
    if node.parameter("bias") is not None:
        raise NotApplicable(f"{node.name}: R-GAP needs layers without bias")
    weight = node.parameter("weight")
    if weight is None or weight not in gradients or graph.parameter_uses[weight] != 1:
        raise NotApplicable(f"{node.name}: R-GAP needs the gradient of every layer's own weight")
    shape = graph.tensors[node.inputs[0]].shape
    match node.op:
        case Grouped() as op if op.groups != 1:
            raise NotApplicable(f"{node.name}: R-GAP knows no groups")
        case Grouped() if len(shape) != 4:
            raise NotApplicable(f"{node.name}: R-GAP needs two spatial axes")
        case Linear() as op if len(shape) != 2 or op.alpha != 1:
            raise NotApplicable(f"{node.name}: R-GAP needs a plain dense layer")
        case _:
            pass
