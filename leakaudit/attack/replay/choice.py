"""Replay of what a stored condition keeps."""

from __future__ import annotations

import torch

from leakaudit.attack.state import State
from leakaudit.equations.known import Known
from leakaudit.leakpath.derivations import choice
from leakaudit.leakpath.facts import value
from leakaudit.operators import Where


def kept_value(step: choice.KeptValue, state: State) -> Known:
    """The elements of one operand that stand in the output."""
    node = state.graph.node(step.node)
    if not isinstance(node.op, Where):
        raise TypeError(f"{node.name} does not choose by a stored condition")
    known = state.known[value(node.outputs[0])]
    y = known.tensor
    mask = torch.zeros_like(y, dtype=torch.bool)
    # One tensor may stand on both sides: it is known wherever either side is chosen.
    if node.inputs[1] == step.conclusion.tensor:
        mask |= state.weights[node.inputs[0]]
    if node.inputs[2] == step.conclusion.tensor:
        mask |= ~state.weights[node.inputs[0]]
    if known.mask is not None:
        mask &= known.mask
    x = torch.where(mask, y, torch.zeros_like(y))
    return Known(x, None if bool(mask.all()) else mask, known.error)
