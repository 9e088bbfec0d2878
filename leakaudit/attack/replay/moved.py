"""Replay of what operators move: every element is found where the operator itself puts it."""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.attack.state import State
from leakaudit.equations.known import Known
from leakaudit.execute import compute
from leakaudit.facts.fact import value
from leakaudit.graph import Node
from leakaudit.operators.moved import MovedValue


def moved_value(step: MovedValue, state: State) -> Known:
    """Every element of an input, from the first place in the outputs where it is known.

    What stands in no output, or only where an output is not known, is not known.
    """
    node = state.graph.node(step.node)
    shape = state.graph.tensors[step.conclusion.tensor].shape
    known = [state.known[value(name)] for name in node.outputs]
    y = torch.cat([output.tensor.reshape(-1) for output in known])
    numbers = _numbers(state, node, step.conclusion.tensor, y)
    shown = torch.cat([output.where.reshape(-1) for output in known])
    places = torch.nonzero(shown & (numbers > 0)).reshape(-1)
    first = torch.full((torch.Size(shape).numel(),), y.numel(), device=y.device)
    first.scatter_reduce_(0, numbers[places] - 1, places, "amin")
    mask = first < y.numel()
    x = torch.where(mask, torch.cat([y, y.new_zeros(1)])[first], 0)
    error = max(output.error for output in known)
    return Known(x.reshape(shape), None if bool(mask.all()) else mask.reshape(shape), error)


def _numbers(state: State, node: Node, tensor: str, like: Tensor) -> Tensor:
    """The number of the element of `tensor` at each place of the outputs, from 1; 0 for others.

    The numbers are sent through the operator twice, the second time negated: a constant that the
    operator puts in is the same both times, whatever it is.
    """
    shape = state.graph.tensors[tensor].shape
    count = torch.arange(1, torch.Size(shape).numel() + 1, dtype=like.dtype, device=like.device)
    values = {
        name: like.new_zeros(state.graph.tensors[name].shape)
        for name in node.inputs
        if name in state.graph.tensors
    }
    sent = []
    for sign in (1, -1):
        values[tensor] = sign * count.reshape(shape)
        outputs = compute(state.graph, node, values, state.weights)
        sent.append(torch.cat([output.reshape(-1) for output in outputs]))
    return torch.where(sent[0] == -sent[1], sent[0], 0).long()
