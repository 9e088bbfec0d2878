"""Replay of the derivations of activation functions."""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.attack.signs.pattern import decide_pattern
from leakaudit.attack.signs.saturation import saturated_exactly
from leakaudit.attack.state import PathBroken, State
from leakaudit.equations.known import Known
from leakaudit.execute.activation import derivative, inverse
from leakaudit.facts.fact import Derivation, gradient, value
from leakaudit.graph import Node
from leakaudit.operators import Activation, activation

# Beyond this magnification one saturated output would put all others in doubt.
_FLATTEST = 1e-6

# An output is saturated where the curve is this much flatter than elsewhere, and what rounding has
# left of it tells o less exactly than this, relative to the others. The estimate of rounding is one
# from above; a 25th of it is typical.
_SATURATED = 1e-2
_WORTHLESS = 1e-3
_TYPICAL = 1 / 25


def _activation(step: Derivation, state: State) -> tuple[Node, Activation, Known, Tensor | None]:
    """The node, its operator, its output (exact where saturated) and PReLU's slope."""
    node = state.graph.node(step.node)
    op = node.op
    if not isinstance(op, Activation):
        raise TypeError(f"{step.node} is not an activation")
    slope = state.weights.get(node.parameter("slope") or "")
    if slope is not None and float(slope.min()) <= 0:
        raise PathBroken(step.node, "a learned slope is not positive: the sign of o is not known")
    known = state.known[value(node.outputs[0])]
    name = node.outputs[0]
    if name in state.decided:
        return node, op, Known(state.decided[name], known.mask, known.error), slope
    levels = op.saturation_levels
    y = saturated_exactly(state, node, levels) if levels else known.tensor
    if op.bends_at_zero and not levels:
        # Outputs that read nothing but padding are 0 exactly; rounding gives them a sign.
        y = torch.where(y.abs() <= _sign_rounding(state, known), torch.zeros_like(y), y)
    if op.straight and op.bends_at_zero and gradient(name) in state.known:
        y = decide_pattern(state, node, op, y, known, slope)
        state.decided[name] = y
    return node, op, Known(y, known.mask, known.error), slope


def _sign_rounding(state: State, y: Known) -> float:
    """What is so small that its sign says nothing, by double precision alone.

    The rounding of coarse gradients is no measure here: 16 epsilons of bfloat16 are an eighth. Nor
    is the error of an ill-conditioned system: it would silence outputs that are small but known.
    """
    epsilon, largest = torch.finfo(y.tensor.dtype).eps, float(y.tensor.abs().max())
    error = y.error * epsilon / state.precision
    return max(16 * epsilon * largest, min(error, 1e4 * epsilon * largest))


def output_gradient(step: activation.ActivationGradient, state: State) -> Known:
    node = state.graph.node(step.node)
    g = state.known[gradient(node.outputs[0])].tensor
    if len(step.premises) == 1:  # the identity
        return Known(g)
    _, op, y, slope = _activation(step, state)
    d = derivative(op, y.tensor, slope)
    if y.mask is not None:
        if bool((g[~y.mask] != 0).any()):
            raise PathBroken(step.node, "its output is not known where its gradient is not 0")
        d = torch.where(y.mask, d, torch.zeros_like(d))  # there g is 0: nothing reads these pixels
    return Known(g * d)


def pre_activation(step: activation.ActivationInverse, state: State) -> Known:
    _, op, y, slope = _activation(step, state)
    o = inverse(op, y.tensor, slope)
    mask = torch.isfinite(o) & y.where
    # Straight pieces through 0 leave a 0 exact; curves round, as the logarithm of 1 + rounding.
    error = y.error if op.straight else y.error + state.rounding(y.tensor)
    slopes = derivative(op, y.tensor, slope).abs()
    if not op.straight:
        mask &= ~_saturated(o, slopes, mask, error)
    o = torch.where(mask, o, torch.zeros_like(o))
    # The error of o is that of y, magnified where the activation is flattest.
    flattest = max(float(slopes[mask].min()), _FLATTEST) if bool(mask.any()) else 1.0
    return Known(o, None if bool(mask.all()) else mask, error / flattest)


def positive_pre_activation(step: activation.PositiveInverse, state: State) -> Known:
    """o where y is positive beyond rounding: a y just below 0 may belong to an o far below."""
    _, op, y, slope = _activation(step, state)
    error = y.error + state.rounding(y.tensor)
    mask = y.tensor > error
    if y.mask is not None:
        mask &= y.mask
    o = torch.where(mask, inverse(op, y.tensor, slope), 0.0)
    # The slope is at least 1/2 there.
    return Known(o, None if bool(mask.all()) else mask, 2 * error)


def _saturated(o: Tensor, slopes: Tensor, mask: Tensor, error: float) -> Tensor:
    """Where y is so near the end of the curve's range that rounding decides what o it stands for.

    Taken for equations, such values contradict all the others.
    """
    steep = mask & (slopes >= _SATURATED * torch.where(mask, slopes, 0).max())
    scale = torch.where(steep, o, 0).abs().max()
    return mask & ~steep & (_TYPICAL * error > _WORTHLESS * scale * slopes)
