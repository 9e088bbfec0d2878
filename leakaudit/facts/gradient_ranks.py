"""The gradient rank bounds of a whole network, from its outputs back to its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leakaudit.facts.gradient_rank import GradientRank, full, nothing, total
from leakaudit.graph import Graph, Node


def gradient_ranks(graph: Graph) -> Mapping[str, GradientRank]:
    """The bounds on dl/dt of every tensor t that a node makes, by its name.

    They hold for any weights and any loss, and are worked out from the outputs towards the inputs.
    """
    found: dict[str, GradientRank] = {}

    def of(tensor: str) -> GradientRank:
        shape = graph.tensors[tensor].shape
        if tensor in graph.outputs or not all(shape):
            return full(shape)
        parts = [
            passed_back(graph, use.node, use.index, [found[name] for name in use.node.outputs])
            for use in graph.uses[tensor]
        ]
        return total(shape, parts) if parts else nothing(shape)

    for node in reversed(graph.nodes):
        for output in node.outputs:
            found[output] = of(output)
    return found


def passed_back(
    graph: Graph, node: Node, index: int, outputs: Sequence[GradientRank]
) -> GradientRank:
    """Bounds on the part of dl/dx that flows back through the node, x being input `index`.

    Args:
        graph: For the shapes.
        node: Where x is read.
        index: Which of its inputs x is.
        outputs: The bounds on the gradients of its outputs.
    """
    shape = graph.tensors[node.inputs[index]].shape
    if not all(all(output.shape) for output in outputs):
        return full(shape)
    bound = node.op.gradient_bound(graph, node, index, outputs)
    return full(shape) if bound is None else bound
