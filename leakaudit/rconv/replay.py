"""Replay the steps of a leak path with numbers: one function per type of derivation."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from leakaudit.graph import Node
from leakaudit.graph.operators import (
    Activation,
    Linear,
    PRelu,
    Relu,
    Reshape,
    Transpose,
)
from leakaudit.leakpath.derivations import activation, convolution, linear, rearrange
from leakaudit.leakpath.facts import Derivation, Kind, Quality, gradient, value
from leakaudit.leakpath.path import SumOverUses
from leakaudit.rconv import activations
from leakaudit.rconv.layer import convolution_of, layer_system, read_pixels
from leakaudit.rconv.relu import active
from leakaudit.rconv.solvers.solve import solve_layer
from leakaudit.rconv.state import Known, PathBroken, State

# Rounding leaves residuals far below this; a wrong scale or sign of the head leaves most of the
# right-hand side unexplained.
CONTRADICTION = 0.3


@singledispatch
def replay(step: Derivation, state: State) -> Known:
    """Compute what a derivation concludes from what is known.

    Raises:
        PathBroken: Its claim does not hold for these numbers.
        NotImplementedError: The type of derivation has no replay.
    """
    raise NotImplementedError(type(step).__name__)


def _dense(step: Derivation, state: State) -> tuple[Node, Linear, Tensor]:
    """The node, its operator, and W as (out, in)."""
    node = state.graph.node(step.node)
    op = node.op
    if not isinstance(op, Linear):
        raise TypeError(f"{step.node} is not a dense layer")
    W = state.weights[node.parameter("weight") or ""]
    return node, op, W.T if op.transposed else W


def _dense_gradient(node: Node, op: Linear, state: State) -> Tensor:
    dW = state.gradients[node.parameter("weight") or ""]
    return dW.T if op.transposed else dW


@replay.register
def _(step: linear.GradientFromBias, state: State) -> Known:
    node, op, _ = _dense(step, state)
    g = state.gradients[node.parameter("bias") or ""] / op.beta
    return Known(g.reshape(state.graph.tensors[node.outputs[0]].shape))


@replay.register
def _(step: linear.ValueFromBias, state: State) -> Known:
    node, op, _ = _dense(step, state)
    g = state.gradients[node.parameter("bias") or ""] / op.beta
    energy = torch.dot(g, g)
    if float(energy) == 0:
        raise PathBroken(step.node, "every bias gradient is 0: the loss does not change here")
    x = (g @ _dense_gradient(node, op, state)) / (op.alpha * energy)
    return Known(x.reshape(state.graph.tensors[node.inputs[0]].shape))


@replay.register
def _(step: linear.ValueFromLoss, state: State) -> Known:
    node, _, _ = _dense(step, state)
    if state.head is None:
        raise PathBroken(step.node, "no scale fulfils the loss equation: its gradient is 0")
    return Known(state.head.x.reshape(state.graph.tensors[node.inputs[0]].shape))


@replay.register
def _(step: linear.GradientFromLoss, state: State) -> Known:
    node, _, _ = _dense(step, state)
    if state.head is None:
        raise PathBroken(step.node, "no scale fulfils the loss equation: its gradient is 0")
    return Known(state.head.g.reshape(state.graph.tensors[node.outputs[0]].shape))


@replay.register
def _(step: linear.ValueUpToScale, state: State) -> Known:
    node, op, _ = _dense(step, state)
    _, singular, Vh = torch.linalg.svd(_dense_gradient(node, op, state), full_matrices=False)
    if float(singular[0]) == 0:
        raise PathBroken(step.node, "every weight gradient is 0: the loss does not change here")
    return Known(Vh[0].reshape(state.graph.tensors[node.inputs[0]].shape))


@replay.register
def _(step: linear.ValueFromGradient, state: State) -> Known:
    node, op, _ = _dense(step, state)
    G = state.known[gradient(node.outputs[0])].tensor.reshape(-1, op.out_features)  # (T, out)
    dW = _dense_gradient(node, op, state) / op.alpha  # (out, in) = Gᵀ x
    U, singular, Vh = torch.linalg.svd(G.T, full_matrices=False)
    largest = float(singular[0])
    rank = int((singular > largest * state.precision * max(G.shape)).sum())
    if rank < G.shape[0] or largest == 0:
        raise PathBroken(
            step.node, f"its output gradient has rank {rank}, {G.shape[0]} rows are to be separated"
        )
    x = Vh.T @ ((U.T @ dW) / singular[:, None])
    return Known(x.reshape(state.graph.tensors[node.inputs[0]].shape))


@replay.register
def _(step: linear.InputGradient, state: State) -> Known:
    node, op, W = _dense(step, state)
    return Known(op.alpha * (state.known[gradient(node.outputs[0])].tensor @ W))


@replay.register
def _(step: convolution.ConvolutionInputGradient, state: State) -> Known:
    node = state.graph.node(step.node)
    w = state.weights[node.parameter("weight") or ""]
    G = state.known[gradient(node.outputs[0])].tensor
    return Known(convolution_of(state.graph, node).input_gradient(G, w))


@replay.register
def _(step: convolution.ConvolutionValue, state: State) -> Known:
    node = state.graph.node(step.node)
    premises = {premise.kind for premise in step.premises}
    (o,) = node.outputs
    system = layer_system(
        state.graph,
        node,
        state.weights,
        state.gradients if Kind.GRADIENT in premises else {},
        G=state.known[gradient(o)].tensor if Kind.GRADIENT in premises else None,
        o=state.known[value(o)] if Kind.VALUE in premises else None,
        precision=state.precision,
    )
    solution = solve_layer(system, state.memory)
    state.solutions[step.node] = solution
    read = solution.unknowns - step.counts.get("unread", 0)
    if solution.rank is not None and solution.rank < read:
        raise PathBroken(
            step.node, f"the equations have rank {solution.rank} of {read} unknowns", solution
        )
    if solution.residual > CONTRADICTION:
        raise PathBroken(
            step.node,
            f"the equations contradict each other (relative residual {solution.residual:.2f})",
            solution,
        )
    mask = None if step.quality is Quality.EXACT else read_pixels(system.convolution, system.w)
    relative = max(state.precision, solution.residual) * (solution.condition or 1e4)
    return Known(solution.x, mask, relative * float(solution.x.abs().max()))


def _activation(step: Derivation, state: State) -> tuple[Node, Activation, Known, Tensor | None]:
    """The node, its operator, its output (rounding around 0 removed) and PReLU's slope."""
    node = state.graph.node(step.node)
    op = node.op
    if not isinstance(op, Activation):
        raise TypeError(f"{step.node} is not an activation")
    slope = state.weights[node.parameter("slope") or ""] if isinstance(op, PRelu) else None
    if slope is not None and float(slope.min()) <= 0:
        raise PathBroken(step.node, "a learned slope is not positive: the sign of o is not known")
    known = state.known[value(node.outputs[0])]
    y = known.tensor
    if isinstance(op, Relu):
        # A tiny positive number stands for an output that is on but lost in rounding.
        on = torch.finfo(y.dtype).tiny
        y = torch.where(active(state, node), y.clamp_min(on), torch.zeros_like(y))
    return node, op, Known(y, known.mask, known.error), slope


@replay.register
def _(step: activation.ActivationGradient, state: State) -> Known:
    node = state.graph.node(step.node)
    g = state.known[gradient(node.outputs[0])].tensor
    if len(step.premises) == 1:  # the identity
        return Known(g)
    _, op, y, slope = _activation(step, state)
    d = activations.derivative(op, y.tensor, slope)
    if y.mask is not None:
        d = torch.where(y.mask, d, torch.zeros_like(d))  # there g is 0: nothing reads these pixels
    return Known(g * d)


@replay.register
def _(step: activation.ActivationInverse, state: State) -> Known:
    _, op, y, slope = _activation(step, state)
    o = activations.inverse(op, y.tensor, slope)
    mask = torch.isfinite(o)
    if y.mask is not None:
        mask &= y.mask
    return Known(
        torch.where(mask, o, torch.zeros_like(o)), None if bool(mask.all()) else mask, y.error
    )


def _move_back(state: State, node: Node, x: Tensor) -> Tensor:
    match node.op:
        case Reshape():
            return x.reshape(state.graph.tensors[node.inputs[0]].shape)
        case Transpose(permutation):
            back = sorted(range(len(permutation)), key=permutation.__getitem__)
            return x.permute(back)
        case _:
            raise TypeError(f"{node.name} does not only move elements")


@replay.register
def _(step: rearrange.RearrangeValue, state: State) -> Known:
    node = state.graph.node(step.node)
    known = state.known[value(node.outputs[0])]
    mask = None if known.mask is None else _move_back(state, node, known.mask)
    return Known(_move_back(state, node, known.tensor), mask, known.error)


@replay.register
def _(step: rearrange.RearrangeGradient, state: State) -> Known:
    node = state.graph.node(step.node)
    return Known(_move_back(state, node, state.known[gradient(node.outputs[0])].tensor))


@replay.register
def _(step: SumOverUses, state: State) -> Known:
    parts = [state.known[premise].tensor for premise in step.premises]
    return Known(torch.stack(parts).sum(dim=0))
