"""Replay of the derivations that hold for any operator."""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.attack.state import PathBroken, State
from leakaudit.equations.known import Known
from leakaudit.execute import compute, execute
from leakaudit.facts import general
from leakaudit.facts.fact import Derivation, Kind, gradient
from leakaudit.leakpath.path import SumOverUses
from leakaudit.operators import Embedding


def sum_over_uses(step: SumOverUses, state: State) -> Known:
    parts = [state.known[premise].tensor for premise in step.premises]
    return Known(torch.stack(parts).sum(dim=0))


def forward(step: general.Forward, state: State) -> Known:
    """The output, computed."""
    node = state.graph.node(step.node)
    values = {fact.tensor: state.known[fact].tensor for fact in step.premises}
    results = compute(state.graph, node, values, state.weights)
    return Known(results[node.outputs.index(step.conclusion.tensor)])


def pull_back(step: Derivation, state: State) -> Known:
    """dl/dx of one input by the vector-Jacobian product of the operator.

    Activations that are not among the premises do not enter: the operator is affine, and zeros
    stand for them.
    """
    node = state.graph.node(step.node)
    values = {
        fact.tensor: state.known[fact].tensor for fact in step.premises if fact.kind is Kind.VALUE
    }
    sent = next(iter(state.gradients.values()))
    inputs: list[Tensor] = []
    for name in node.inputs:
        if name in values:
            inputs.append(values[name])
        elif name in state.graph.tensors:
            inputs.append(sent.new_zeros(state.graph.tensors[name].shape))
        else:
            inputs.append(state.weights[name])
    target = step.conclusion
    index = target.index if target.kind is Kind.CONTRIBUTION else node.inputs.index(target.tensor)
    inputs[index] = inputs[index].detach().clone().requires_grad_(True)
    outputs = execute(state.graph, node, inputs, state.weights)
    back = [state.known[gradient(name)].tensor for name in node.outputs]
    pairs = [(o, g) for o, g in zip(outputs, back, strict=True) if o.requires_grad]
    if not pairs:
        return Known(torch.zeros_like(inputs[index]))
    # As a number, whose gradient is the same: given outputs' gradients, torch imports sympy first.
    total = torch.stack([(o * g).sum() for o, g in pairs]).sum()
    (result,) = torch.autograd.grad(total, [inputs[index]], allow_unused=True)
    return Known(torch.zeros_like(inputs[index]) if result is None else result)


def bias_gradient(step: Derivation, state: State) -> Known:
    """dl/dy = db where each element of a bias is read once."""
    node = state.graph.node(step.node)
    return state.shaped(node.outputs[0], state.gradients[node.parameter("bias") or ""])


def unused_gradient(step: general.UnusedGradient, state: State) -> Known:
    """Zero."""
    sent = next(iter(state.gradients.values()))
    return Known(sent.new_zeros(state.graph.tensors[step.conclusion.tensor].shape))


def selected_parameter_gradient(step: general.SelectedParameterGradient, state: State) -> Known:
    """The same elements of the parameter's gradient."""
    node = state.graph.node(step.node)
    if isinstance(node.op, Embedding):
        rows = state.weights[node.inputs[0]].flatten()
        if len(set(rows.tolist())) < rows.numel():
            raise PathBroken(step.node, "a row of the table is read twice: its gradient is a sum")
    inputs = [state.gradients.get(name, state.weights[name]) for name in node.inputs]
    return Known(execute(state.graph, node, inputs, state.gradients)[0])
