"""Run a graph in torch: the victim's forward pass, differentiable by autograd."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch

from torch import Tensor

from leakaudit.graph import Graph, Node
from leakaudit.graph.operators import (
    Activation,
    Conv,
    Linear,
    Operator,
    Reshape,
    Transpose,
    Unsupported,
)
from leakaudit.rconv import activations
from leakaudit.rconv.convolution import Convolution

Values = dict[str, Tensor]


class NotExecutable(Exception):
    """The graph holds an operator that is not understood, named in the text."""


def run(graph: Graph, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Values:
    """Compute every activation.

    Args:
        graph: The network.
        weights: Every stored parameter by name, one dtype and device for all floating ones.
        inputs: Every graph input by name, of the graph's shapes.

    Returns:
        Every tensor of the graph by name.

    Raises:
        NotExecutable: An operator is not understood.
    """
    values: Values = dict(inputs)
    for node in graph.nodes:
        arguments = [values[name] if name in values else weights[name] for name in node.inputs]
        parameters = {role: weights[name] for role, name in node.parameters}
        outputs = execute(node.op, arguments, parameters, graph, node)
        values.update(zip(node.outputs, outputs, strict=True))
    return values


@singledispatch
def execute(
    op: Operator, x: list[Tensor], parameters: Mapping[str, Tensor], graph: Graph, node: Node
) -> tuple[Tensor, ...]:
    """Compute the outputs of one operator.

    Args:
        op: The operator.
        x: Its inputs.
        parameters: Its parameters by role.
        graph: For the shapes.
        node: The node that applies it.

    Raises:
        NotExecutable: The operator is not understood.
    """
    raise NotExecutable(f"{node.name} ({type(op).__name__})")


@execute.register
def _(
    op: Unsupported, x: list[Tensor], parameters: Mapping[str, Tensor], graph: Graph, node: Node
) -> tuple[Tensor, ...]:
    raise NotExecutable(f"{node.name} ({op.kind}: {op.reason})")


@execute.register
def _(
    op: Conv, x: list[Tensor], parameters: Mapping[str, Tensor], graph: Graph, node: Node
) -> tuple[Tensor, ...]:
    w = parameters["weight"]
    o = Convolution(op, tuple(x[0].shape), tuple(w.shape)).output(x[0], w)
    return (add_channel_bias(o, parameters.get("bias")),)


def add_channel_bias(o: Tensor, bias: Tensor | None, sign: int = 1) -> Tensor:
    """o plus (or minus) a bias of one value per channel; o is (B, F, ..)."""
    if bias is None:
        return o
    return o + sign * bias.view(1, -1, *[1] * (o.dim() - 2))


@execute.register
def _(
    op: Linear, x: list[Tensor], parameters: Mapping[str, Tensor], graph: Graph, node: Node
) -> tuple[Tensor, ...]:
    w, bias = parameters["weight"], parameters.get("bias")
    z = op.alpha * (x[0] @ (w if op.transposed else w.T))
    return (z if bias is None else z + op.beta * bias,)


@execute.register
def _(
    op: Activation, x: list[Tensor], parameters: Mapping[str, Tensor], graph: Graph, node: Node
) -> tuple[Tensor, ...]:
    return (activations.apply(op, x[0], parameters.get("slope")),)


@execute.register
def _(
    op: Reshape, x: list[Tensor], parameters: Mapping[str, Tensor], graph: Graph, node: Node
) -> tuple[Tensor, ...]:
    return (x[0].reshape(graph.tensors[node.outputs[0]].shape),)


@execute.register
def _(
    op: Transpose, x: list[Tensor], parameters: Mapping[str, Tensor], graph: Graph, node: Node
) -> tuple[Tensor, ...]:
    return (x[0].permute(op.permutation),)
