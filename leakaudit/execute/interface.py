"""What the execution of one operator reads and gives, and the outcome where it cannot run.

An executor is a function (op, x, parameters, graph, node) -> outputs:

    op          the operator
    x           its inputs, activations or parameters, in the node's order
    parameters  its parameters by role
    graph, node for the stated shapes and for the layer's name

It is differentiable by autograd wherever the mathematics is, leaves the dtype of its inputs as it
is, and makes every tensor on the device of its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from leakaudit.graph import Graph, Node

Inputs = Sequence[Tensor]
Parameters = Mapping[str, Tensor]
Outputs = tuple[Tensor, ...]


class NotExecutable(Exception):
    """The graph holds an operator that is not understood, or that contradicts its own shapes.

    The text names the layer.
    """


def stated_shape(graph: Graph, node: Node) -> tuple[int, ...]:
    """The shape of the node's first output, as the graph states it."""
    return graph.tensors[node.outputs[0]].shape
