"""What gradients would a candidate input give? The attacker's own check, without the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from leakaudit.attack.state import State
from leakaudit.execute import run
from leakaudit.facts.fact import gradient


def simulate_gradients(state: State, inputs: Mapping[str, Tensor]) -> float | None:
    """Relative difference between the observed gradients and those of a candidate input.

    The label is not known, but the gradient at the network's output is (from the head's bias or
    from the loss equation): it is sent back through the network in place of the loss.

    Returns:
        sqrt(sum |g - observed|² / sum |observed|²) over all parameters; None where the gradient at
        the output is not known or inputs are missing.
    """
    graph = state.graph
    if set(inputs) != set(graph.inputs) or len(graph.outputs) != 1:
        return None
    (output,) = graph.outputs
    known = state.known.get(gradient(output))
    if known is None:
        return None
    weights = {
        name: w.detach().requires_grad_(name in state.gradients)
        for name, w in state.weights.items()
    }
    z = run(graph, weights, inputs)[output]
    names = list(state.gradients)
    sent_back = (z * known.tensor).sum()
    simulated = torch.autograd.grad(sent_back, [weights[name] for name in names], allow_unused=True)
    difference = total = 0.0
    for name, got in zip(names, simulated, strict=True):
        observed = state.gradients[name]
        delta = observed if got is None else got - observed
        difference += float(delta.square().sum())
        total += float(observed.square().sum())
    return math.sqrt(difference / total) if total else math.sqrt(difference)
