"""The convolution below an activation, and which of its gradients speak of that output alone."""

from __future__ import annotations

from torch import Tensor

from leakaudit.attack.state import State
from leakaudit.graph import Node


def convolution_below(state: State, node: Node) -> Node | None:
    """The convolution below, if its weight's gradient speaks of this output alone."""
    below = _sole(state, node)
    return below if below is not None and _observed(state, below, "weight") is not None else None


def bias_gradient(state: State, node: Node) -> Tensor | None:
    """The observed bias gradient of the convolution below, if it speaks of this output alone."""
    below = _sole(state, node)
    return None if below is None else _observed(state, below, "bias")


def _sole(state: State, node: Node) -> Node | None:
    """The convolution whose output the activation alone reads."""
    (o,) = node.inputs
    below = state.graph.producers.get(o)
    sole = below is not None and below.op.is_convolution and len(state.graph.uses[o]) == 1
    return below if sole else None


def _observed(state: State, node: Node, role: str) -> Tensor | None:
    """The gradient of a parameter that nothing else uses."""
    name = node.parameter(role)
    if name is None or state.graph.parameter_uses[name] != 1:
        return None
    return state.gradients.get(name)
