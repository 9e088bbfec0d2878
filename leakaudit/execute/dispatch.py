"""Run a whole graph, node after node; each family's file says which of its operators runs how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from leakaudit import operators
from leakaudit.execute import (
    activation,
    arithmetic,
    attention,
    convolution,
    dense,
    embedding,
    normalisation,
    pooling,
    reduction,
    resize,
    selection,
    shape,
)
from leakaudit.execute.interface import Call, Executors, NotExecutable, Outputs
from leakaudit.graph import Graph, Node, Operator, Unsupported

Values = dict[str, Tensor]


def run(graph: Graph, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Values:
    """Compute every activation.

    Args:
        graph: The network.
        weights: Every stored parameter by name, one dtype and device for all floating ones.
        inputs: Every graph input by name, of the graph's shapes.

    Returns:
        Every tensor of the graph by name.

    Raises:
        NotExecutable: An operator is not understood, or computes another shape than stated.
    """
    values: Values = dict(inputs)
    for node in graph.nodes:
        outputs = compute(graph, node, values, weights)
        for name, output in zip(node.outputs, outputs, strict=True):
            stated = graph.tensors[name].shape
            if output.shape != stated:
                raise NotExecutable(
                    f"{node.name} ({type(node.op).__name__} gives {tuple(output.shape)}, and the "
                    f"file states {stated})"
                )
            values[name] = output
    return values


def compute(
    graph: Graph, node: Node, values: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> Outputs:
    """Compute the outputs of one node from activations and parameters by name.

    Raises:
        NotExecutable: The operator is not understood.
    """
    inputs = [values[name] if name in values else weights[name] for name in node.inputs]
    return execute(graph, node, inputs, weights)


def execute(
    graph: Graph, node: Node, x: Sequence[Tensor], weights: Mapping[str, Tensor]
) -> Outputs:
    """The same with its inputs x, activations or parameters, in the node's order."""
    op = node.op
    parameters = {role: weights[name] for role, name in node.parameters}
    if isinstance(op, Unsupported):
        raise NotExecutable(f"{node.name} ({op.kind}: {op.reason})")
    executor = EXECUTORS.get(type(op))
    if executor is None:
        raise NotExecutable(f"{node.name} ({type(op).__name__})")
    return executor(op, Call(x, parameters, graph.tensors[node.outputs[0]].shape, node.name))


def merged(families: Iterable[Executors], expected: Iterable[type[Operator]]) -> Executors:
    """One table of all families.

    Args:
        families: The tables.
        expected: The operators that there are.

    Raises:
        TypeError: An operator has no executor, or two.
    """
    pairs = [pair for family in families for pair in family.items()]
    table = dict(pairs)
    missing = [operator.__name__ for operator in expected if operator not in table]
    if missing or len(table) < len(pairs):
        raise TypeError(f"operators without an executor: {missing}; or one has two")
    return table


_ABSTRACT = (Operator, operators.Activation, Unsupported)  # nothing runs these
OPERATORS = [
    operator
    for name in operators.__all__
    if (operator := getattr(operators, name)) not in _ABSTRACT
]
FAMILIES = (
    activation,
    arithmetic,
    attention,
    convolution,
    dense,
    embedding,
    normalisation,
    pooling,
    reduction,
    resize,
    selection,
    shape,
)
EXECUTORS = merged((family.EXECUTORS for family in FAMILIES), OPERATORS)
