"""Replay of arithmetic, undone: one operand, or its gradient, from the result."""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.attack.state import PathBroken, State
from leakaudit.equations.known import Known
from leakaudit.facts.fact import Kind, value
from leakaudit.operators import Add, Div, Mul, Scale, Sub
from leakaudit.operators.arithmetic import AddedParameterGradient, BranchValue, OperandGradient


def branch_value(step: BranchValue, state: State) -> Known:
    """One operand from the result and the other."""
    node = state.graph.node(step.node)
    y = state.known[value(node.outputs[0])]
    index = node.inputs.index(step.conclusion.tensor)
    if isinstance(node.op, Scale):
        error = y.error + (state.rounding(y.tensor) if node.op.offset else 0.0)
        x = (y.tensor - node.op.offset) / node.op.factor
        return Known(x, y.mask, error / abs(node.op.factor))
    other_name = node.inputs[1 - index]
    known = state.known.get(value(other_name))
    other = known.tensor if known else state.weights[other_name]
    error = y.error + (known.error if known else 0.0)
    match node.op:
        case Add():
            return Known(y.tensor - other, y.mask, error + state.rounding(y.tensor))
        case Sub():
            x = y.tensor + other if index == 0 else other - y.tensor
            return Known(x, y.mask, error + state.rounding(y.tensor))
        case Div():
            return Known(y.tensor * other, y.mask, error * float(other.abs().max()))
        case Mul(zeros=zeros) if zeros:
            mask = y.where & (other != 0)
            x = torch.where(mask, y.tensor / other, torch.zeros_like(y.tensor))
            return Known(x, mask, error / float(other[other != 0].abs().min()))
        case Mul():
            require_nonzero(step.node, other)
            return Known(y.tensor / other, y.mask, error / float(other.abs().min()))
        case _:
            raise TypeError(f"{node.name} is not arithmetic")


def added_parameter_gradient(step: AddedParameterGradient, state: State) -> Known:
    """The gradient of the parameter that is added, or minus it where it is subtracted."""
    node = state.graph.node(step.node)
    shape = state.graph.tensors[node.outputs[0]].shape
    for index, name in enumerate(node.inputs):
        if name in state.gradients and state.gradients[name].numel() == torch.Size(shape).numel():
            sign = -1 if isinstance(node.op, Sub) and index == 1 else 1
            return state.shaped(node.outputs[0], sign * state.gradients[name])
    raise TypeError(f"{step.node} adds no parameter of the shape of its output")


def operand_gradient(step: OperandGradient, state: State) -> Known:
    """The gradient of a sum is that of its operand."""
    node = state.graph.node(step.node)
    (fact,) = step.premises
    index = fact.index if fact.kind is Kind.CONTRIBUTION else node.inputs.index(fact.tensor)
    sign = -1 if isinstance(node.op, Sub) and index == 1 else 1
    return state.shaped(node.outputs[0], sign * state.known[fact].tensor)


def require_nonzero(node: str, factor: Tensor) -> None:
    """Break off where a factor that is divided by is 0."""
    if bool((factor == 0).any()):
        raise PathBroken(node, "a factor is 0: what it multiplies is lost")
