"""The equations of one convolution of the graph, ready for a solver."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from leakaudit.counting.geometry import geometry_of
from leakaudit.equations.convolution import add_channel_bias, convolution_of
from leakaudit.equations.known import Known
from leakaudit.equations.system import LayerSystem
from leakaudit.graph import Graph, Node


def layer_system(
    graph: Graph,
    node: Node,
    weights: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    *,
    G: Tensor | None,
    o: Known | None,
    precision: float,
) -> LayerSystem:
    """Set up gradient constraints where dl/do is given, weight constraints where o is.

    Args:
        graph: The network.
        node: A convolution.
        weights: Parameters by name, float64.
        gradients: Observed parameter gradients by name, float64.
        G: dl/do (B, F, O..).
        o: The pre-activation output, known where its mask says so.
        precision: Machine epsilon of the observed gradients.
    """
    bias = weights.get(node.parameter("bias") or "")
    unbiased = mask = None
    if o is not None:
        unbiased = torch.where(o.where, add_channel_bias(o.tensor, bias, -1), 0.0)
        mask = o.where.to(o.tensor.dtype)
    weight = node.parameter("weight") or ""
    return LayerSystem(
        convolution=convolution_of(graph, node),
        geometry=geometry_of(graph, node),
        w=weights[weight],
        dw=gradients.get(weight),
        G=G,
        o=unbiased,
        mask=mask,
        precision=precision,
    )
