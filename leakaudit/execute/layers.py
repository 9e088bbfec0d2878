"""Layers with weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.equations.convolution import Convolution, add_channel_bias
from leakaudit.execute.interface import Inputs, NotExecutable, Outputs, Parameters
from leakaudit.graph import Graph, Node
from leakaudit.operators import Conv, ConvTranspose, Embedding, Linear


def convolution(op: Conv, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """o = w * x + b, (B, F, O_1..O_d)."""
    w = parameters["weight"]
    o = Convolution(op, tuple(x[0].shape), tuple(w.shape)).output(x[0], w)
    return (add_channel_bias(o, parameters.get("bias")),)


def transposed_convolution(
    op: ConvTranspose, x: Inputs, parameters: Parameters, graph: Graph, node: Node
) -> Outputs:
    """The full output, cut (or extended by zeros) on every side, plus the bias.

    Full size per axis: (H - 1)·S + dilation·(K - 1) + 1.
    """
    axes = len(op.kernel)
    full: Tensor = torch.ops.aten.convolution.default(
        x[0],
        parameters["weight"],
        None,
        list(op.stride),
        [0] * axes,
        list(op.dilation),
        True,
        [0] * axes,
        op.groups,
    )
    cut: list[int] = []
    for begin, end in zip(reversed(op.padding_begin), reversed(op.padding_end), strict=True):
        cut += [-begin, -end]  # a negative pad crops
    o = F.pad(full, cut) if any(cut) else full
    return (add_channel_bias(o, parameters.get("bias")),)


def linear(op: Linear, x: Inputs, parameters: Parameters, graph: Graph, node: Node) -> Outputs:
    """y = alpha · x Wᵀ + beta · b on the last axis."""
    w, bias = parameters["weight"], parameters.get("bias")
    z = op.alpha * (x[0] @ (w if op.transposed else w.T))
    return (z if bias is None else z + op.beta * bias,)


def embedding(
    op: Embedding, x: Inputs, parameters: Parameters, graph: Graph, node: Node
) -> Outputs:
    """Rows of the table, (.., D); negative indices count from its end, as ONNX and numpy have it.

    Raises:
        NotExecutable: An index lies outside the table.
    """
    table, index = parameters["weight"], x[0].long()
    rows = table.shape[0]
    # Asked before the lookup: on a GPU an index outside the table ends the whole process.
    if not bool(((index >= -rows) & (index < rows)).all()):
        raise NotExecutable(f"{node.name} (an index lies outside its table of {rows} rows)")
    return (F.embedding(torch.where(index < 0, index + rows, index), table),)
