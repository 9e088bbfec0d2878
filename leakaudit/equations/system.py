"""The linear equations of one convolution: what a solver is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leakaudit.counting.geometry import ConvolutionGeometry, geometry_of
from leakaudit.equations.convolution import Convolution, add_channel_bias, convolution_of
from leakaudit.equations.known import Known
from leakaudit.graph import Graph, Node


@dataclass(frozen=True, slots=True)
class LayerSystem:
    """The linear equations of one convolution, in float64 on one device.

    Attributes:
        convolution: The layer's maps and shapes.
        geometry: The same layer as counting sees it.
        w: Weights (F, n, K..).
        dw: Observed dl/dw (F, n, K..), or None where it is not observed.
        G: Output gradient dl/do (B, F, O..), or None where it is not known.
        o: o - b on the known outputs (B, F, O..), or None where none are known.
        mask: 1 where o is known, 0 elsewhere, or None with o.
        precision: Relative precision (machine epsilon) of the observed gradients.
    """

    convolution: Convolution
    geometry: ConvolutionGeometry
    w: Tensor
    dw: Tensor | None
    G: Tensor | None
    o: Tensor | None
    mask: Tensor | None
    precision: float

    @property
    def has_gradient(self) -> bool:
        """Whether gradient constraints can be set up."""
        return self.dw is not None and self.G is not None

    @property
    def has_weight(self) -> bool:
        """Whether weight constraints can be set up."""
        return self.o is not None


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
