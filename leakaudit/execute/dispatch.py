"""Run a whole graph, node after node; which operator runs how is an explicit registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any

from torch import Tensor

from leakaudit import operators as ops
from leakaudit.execute import (
    activation,
    arithmetic,
    layers,
    normalisation,
    pooling,
    resize,
    shape,
)
from leakaudit.execute.interface import Inputs, NotExecutable, Outputs, Parameters
from leakaudit.graph import Graph, Node

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
        arguments = [values[name] if name in values else weights[name] for name in node.inputs]
        parameters = {role: weights[name] for role, name in node.parameters}
        outputs = execute(node.op, arguments, parameters, graph, node)
        for name, output in zip(node.outputs, outputs, strict=True):
            stated = graph.tensors[name].shape
            if output.shape != stated:
                raise NotExecutable(
                    f"{node.name} ({type(node.op).__name__} gives {tuple(output.shape)}, and the "
                    f"file states {stated})"
                )
            values[name] = output
    return values


@singledispatch
def execute(
    op: ops.Operator, x: Inputs, parameters: Parameters, graph: Graph, node: Node
) -> Outputs:
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


def unsupported(
    op: ops.Unsupported, x: Inputs, parameters: Parameters, graph: Graph, node: Node
) -> Outputs:
    """Refuse, with the reason that the frontend gave."""
    raise NotExecutable(f"{node.name} ({op.kind}: {op.reason})")


REGISTRY: Mapping[type[ops.Operator], Callable[[Any, Inputs, Parameters, Graph, Node], Outputs]] = {
    ops.Unsupported: unsupported,
    ops.Activation: activation.activation,
    ops.Elementwise: activation.elementwise,
    ops.Conv: layers.convolution,
    ops.ConvTranspose: layers.transposed_convolution,
    ops.Linear: layers.linear,
    ops.Embedding: layers.embedding,
    ops.Add: arithmetic.add,
    ops.Sub: arithmetic.subtract,
    ops.Mul: arithmetic.multiply,
    ops.Div: arithmetic.divide,
    ops.Pow: arithmetic.power,
    ops.Scale: arithmetic.scale,
    ops.MatMul: arithmetic.matmul,
    ops.Einsum: arithmetic.einsum,
    ops.Attention: arithmetic.attention,
    ops.Reshape: shape.reshape,
    ops.Transpose: shape.transpose,
    ops.Expand: shape.expand,
    ops.Concat: shape.concat,
    ops.Split: shape.split,
    ops.Slice: shape.slice_axes,
    ops.Gather: shape.gather,
    ops.Pad: shape.pad,
    ops.Where: shape.where,
    ops.Reduce: shape.reduce,
    ops.Resize: resize.resize,
    ops.MaxPool: pooling.max_pool,
    ops.AveragePool: pooling.average_pool,
    ops.AdaptiveAveragePool: pooling.adaptive_average_pool,
    ops.LpPool: pooling.lp_pool,
    ops.BatchNorm: normalisation.batch_norm,
    ops.LayerNorm: normalisation.layer_norm,
    ops.RmsNorm: normalisation.rms_norm,
    ops.GroupNorm: normalisation.group_norm,
    ops.LocalResponseNorm: normalisation.local_response_norm,
    ops.LpNormalization: normalisation.lp_normalization,
    ops.Softmax: normalisation.softmax,
}
for operator, executor in REGISTRY.items():
    execute.register(operator, executor)
