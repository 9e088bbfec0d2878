"""The activation pattern of ReLU, LeakyReLU and PReLU: which of their outputs lie above 0.

The recovered output gives a first guess. Where errors may hide the sign of some outputs, and the
bias gradients do not confirm the guess, `trials` looks for the pattern that the gradients fit best.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.attack.signs.below import bias_gradient, convolution_below
from leakaudit.attack.signs.trials import PiecewiseLinear, fit_pattern
from leakaudit.attack.state import State
from leakaudit.equations.known import Known
from leakaudit.execute.activation import derivative
from leakaudit.facts.fact import gradient
from leakaudit.graph import Node
from leakaudit.operators import Activation, Relu

# Gradients more precise than this decide by the bias gradients alone, wherever these fit.
PRECISE = 1e-5


def decide_pattern(
    state: State, node: Node, op: Activation, y: Tensor, known: Known, slope: Tensor | None
) -> Tensor:
    """The output of ReLU, LeakyReLU or PReLU with the signs of the activation pattern that fits.

    Args:
        state: dl/dy must be known.
        node: The activation.
        op: Its operator.
        y: Its output, with the signs of the first guess.
        known: The same as it was recovered.
        slope: PReLU's slopes.
    """
    below = convolution_below(state, node)
    g = state.known[gradient(node.outputs[0])].tensor
    if below is None or known.mask is not None:
        return y
    raw, radius = known.tensor, known.error
    if isinstance(op, Relu) and bool((raw < 0).any()):
        # What came back below 0 shows how large the errors are.
        radius = min(radius, 3 * float(-raw.min()))
    on = y > 0
    slope_below = derivative(op, torch.full_like(y, -1), slope)
    piecewise = PiecewiseLinear(raw, g, slope_below, radius)
    if radius > 0 and not _sums_fit(state, node, piecewise, on):
        on = fit_pattern(state, below, piecewise, on, bias_gradient(state, node))
    if state.precision > PRECISE:
        state.outputs[below.outputs[0]] = piecewise.output(on)
    tiny = torch.finfo(y.dtype).tiny
    off = torch.zeros_like(y) if isinstance(op, Relu) else y.clamp_max(-tiny)
    return torch.where(on, y.clamp_min(tiny), off)


def _sums_fit(state: State, node: Node, piecewise: PiecewiseLinear, on: Tensor) -> bool:
    """Whether the bias gradients confirm the pattern: they fit, and are precise enough to tell."""
    sums = bias_gradient(state, node)
    if sums is None or state.precision > PRECISE:
        return state.precision <= PRECISE
    G = piecewise.output_gradient(on).transpose(0, 1).flatten(1)
    tolerance = 1e3 * state.precision * G.abs().sum(dim=1)
    return bool(((G.sum(dim=1) - sums).abs() <= tolerance).all())
