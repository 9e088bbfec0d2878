"""Which nodes are layers with weights, and which of these are convolutions: asked here by everyone.

Counting treats a dense layer as a convolution of kernel 1. What else differs between the two, such
as how a layer alone is solved, goes by these questions, so that no later stage names operators.
"""

from __future__ import annotations

from leakaudit.graph import Graph, Node
from leakaudit.operators import Conv, Linear


def is_layer(node: Node) -> bool:
    """Whether the node's weight gradients are counted as equations for its input."""
    return isinstance(node.op, Conv | Linear)


def is_convolution(node: Node) -> bool:
    """Whether it is such a layer that moves a window over spatial axes."""
    return isinstance(node.op, Conv)


def hyperparameters(graph: Graph, node: Node) -> dict[str, object]:
    """The design of a layer as plain JSON values: what it says in reports and fingerprints.

    Raises:
        TypeError: The node is no layer with weights.
    """
    bias = node.parameter("bias") is not None
    match node.op:
        case Conv() as op:
            return {
                "filters": graph.parameters[node.parameter("weight") or ""].shape[0],
                "kernel": list(op.kernel),
                "stride": list(op.stride),
                "padding_begin": list(op.padding_begin),
                "padding_end": list(op.padding_end),
                "dilation": list(op.dilation),
                "groups": op.groups,
                "bias": bias,
            }
        case Linear() as op:
            return {
                "in_features": op.in_features,
                "out_features": op.out_features,
                "bias": bias,
            }
        case _:
            raise TypeError(f"{node.name} has no weights")
