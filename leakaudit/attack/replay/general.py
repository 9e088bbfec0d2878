"""Replay of the derivations that hold for any operator."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from leakaudit.attack.state import PathBroken, State
from leakaudit.equations.known import Known
from leakaudit.execute import execute
from leakaudit.graph import Node
from leakaudit.leakpath.derivations import arithmetic, general, selection
from leakaudit.leakpath.facts import Kind, gradient, value
from leakaudit.leakpath.path import SumOverUses
from leakaudit.operators import Concat, Embedding, Expand, Gather, Pad, Slice, Split, Sub


def sum_over_uses(step: SumOverUses, state: State) -> Known:
    parts = [state.known[premise].tensor for premise in step.premises]
    return Known(torch.stack(parts).sum(dim=0))


def compute(node: Node, state: State, values: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The outputs of a node for these activations."""
    inputs = [values[name] if name in values else state.weights[name] for name in node.inputs]
    parameters = {role: state.weights[name] for role, name in node.parameters}
    return execute(node.op, inputs, parameters, state.graph, node)


def forward(step: general.Forward, state: State) -> Known:
    """The output, computed."""
    node = state.graph.node(step.node)
    values = {fact.tensor: state.known[fact].tensor for fact in step.premises}
    results = compute(node, state, values)
    return Known(results[node.outputs.index(step.conclusion.tensor)])


def pull_back(
    step: general.Backward | general.AffineGradient | arithmetic.ProductGradient, state: State
) -> Known:
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
    parameters = {role: state.weights[name] for role, name in node.parameters}
    outputs = execute(node.op, inputs, parameters, state.graph, node)
    back = [state.known[gradient(name)].tensor for name in node.outputs]
    pairs = [(o, g) for o, g in zip(outputs, back, strict=True) if o.requires_grad]
    if not pairs:
        return Known(torch.zeros_like(inputs[index]))
    (result,) = torch.autograd.grad(
        [o for o, _ in pairs], [inputs[index]], [g for _, g in pairs], allow_unused=True
    )
    return Known(torch.zeros_like(inputs[index]) if result is None else result)


def unused_gradient(step: general.UnusedGradient, state: State) -> Known:
    """Zero."""
    sent = next(iter(state.gradients.values()))
    return Known(sent.new_zeros(state.graph.tensors[step.conclusion.tensor].shape))


def added_parameter_gradient(step: general.AddedParameterGradient, state: State) -> Known:
    """The gradient of the parameter that is added, or minus it where it is subtracted."""
    node = state.graph.node(step.node)
    shape = state.graph.tensors[node.outputs[0]].shape
    for index, name in enumerate(node.inputs):
        if name in state.gradients and state.gradients[name].numel() == torch.Size(shape).numel():
            sign = -1 if isinstance(node.op, Sub) and index == 1 else 1
            return Known(sign * state.gradients[name].reshape(shape))
    raise TypeError(f"{step.node} adds no parameter of the shape of its output")


def selected_parameter_gradient(step: general.SelectedParameterGradient, state: State) -> Known:
    """The same elements of the parameter's gradient."""
    node = state.graph.node(step.node)
    parameters = {role: state.gradients[name] for role, name in node.parameters}
    if isinstance(node.op, Embedding):
        rows = state.weights[node.inputs[0]].flatten()
        if len(set(rows.tolist())) < rows.numel():
            raise PathBroken(step.node, "a row of the table is read twice: its gradient is a sum")
    inputs = [state.gradients.get(name, state.weights[name]) for name in node.inputs]
    return Known(execute(node.op, inputs, parameters, state.graph, node)[0])


def operand_gradient(step: general.OperandGradient, state: State) -> Known:
    """The gradient of a sum is that of its operand."""
    node = state.graph.node(step.node)
    (fact,) = step.premises
    index = fact.index if fact.kind is Kind.CONTRIBUTION else node.inputs.index(fact.tensor)
    sign = -1 if isinstance(node.op, Sub) and index == 1 else 1
    shape = state.graph.tensors[node.outputs[0]].shape
    return Known(sign * state.known[fact].tensor.reshape(shape))


def part_value(step: selection.PartValue, state: State) -> Known:
    """The input as it stands in the output of Concat, Pad or Expand."""
    node = state.graph.node(step.node)
    known = state.known[value(node.outputs[0])]
    y = known.tensor
    shape = state.graph.tensors[step.conclusion.tensor].shape
    match node.op:
        case Concat(axis):
            start = 0
            for name in node.inputs:
                stored = state.graph.tensors.get(name) or state.graph.parameters[name]
                if name == step.conclusion.tensor:
                    break
                start += stored.shape[axis]
            return Known(y.narrow(axis, start, shape[axis]), error=known.error)
        case Pad(begin):
            for axis, (first, size) in enumerate(zip(begin, shape, strict=True)):
                y = y.narrow(axis, first, size)
            return Known(y, error=known.error)
        case Expand():
            y = y[(0,) * (y.dim() - len(shape))]
            for axis, size in enumerate(shape):
                y = y.narrow(axis, 0, size)
            return Known(y, error=known.error)
        case _:
            raise TypeError(f"{node.name} does not copy its input")


def whole_value(step: selection.WholeValue, state: State) -> Known:
    """The input put together from the outputs of Split, Slice or Gather."""
    node = state.graph.node(step.node)
    outputs = [state.known[value(name)].tensor for name in node.outputs]
    error = max(state.known[value(name)].error for name in node.outputs)
    shape = state.graph.tensors[node.inputs[0]].shape
    match node.op:
        case Split(axis):
            return Known(torch.cat(outputs, dim=axis), error=error)
        case Slice() | Gather():
            # Every element occurs: send the numbers of the elements through the operator.
            numbers = torch.arange(torch.Size(shape).numel(), device=outputs[0].device)
            where = execute(node.op, [numbers.reshape(shape)], {}, state.graph, node)[0]
            x = outputs[0].new_zeros(numbers.shape)
            x[where.reshape(-1)] = outputs[0].reshape(-1)
            return Known(x.reshape(shape), error=error)
        case _:
            raise TypeError(f"{node.name} does not select elements")
