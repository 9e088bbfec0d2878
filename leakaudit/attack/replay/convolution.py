"""Replay of the derivations of convolutions: here the equations are solved."""

from __future__ import annotations

import torch

from leakaudit.attack.replay.activation import pre_activation
from leakaudit.attack.state import PathBroken, State
from leakaudit.equations.convolution import convolution_of
from leakaudit.equations.known import Known
from leakaudit.facts.fact import Kind, Quality, gradient, value
from leakaudit.operators import Activation, convolution
from leakaudit.operators.activation import ActivationInverse
from leakaudit.solvers.solve import solve_layer

# Rounding leaves residuals far below this; a wrong scale or sign of the head leaves most of the
# right-hand side unexplained.
CONTRADICTION = 0.3
# What a well-conditioned solve rounds by itself, in units of float64's: sums of many products. An
# estimate that is too small by a little takes a 0 that came back as 4e-15 for an output that is on.
ROUNDING = 32.0
EPSILON = torch.finfo(torch.float64).eps


def input_gradient(step: convolution.ConvolutionInputGradient, state: State) -> Known:
    node = state.graph.node(step.node)
    w = state.weights[node.parameter("weight") or ""]
    G = state.known[gradient(node.outputs[0])].tensor
    return Known(convolution_of(state.graph, node).input_gradient(G, w))


def layer_value(step: convolution.ConvolutionValue, state: State) -> Known:
    node = state.graph.node(step.node)
    premises = {premise.kind for premise in step.premises}
    (o,) = node.outputs
    # Coarse gradients are worth the output as well, where deciding its pattern has shown it.
    output = state.known[value(o)] if Kind.VALUE in premises else state.outputs.get(o)
    G = state.known[gradient(o)].tensor if Kind.GRADIENT in premises else None
    system = state.system(node, G, output)
    solution = solve_layer(system, state.memory)
    read = solution.unknowns - step.counts.get("unread", 0)
    if output is None and solution.falls_short(read):
        # Counting takes every dl/do for generic; many that are 0 fix less. The output may be had.
        output = _output(o, state)
        if output is not None:
            system = state.system(node, G, output)
            solution = solve_layer(system, state.memory)
    state.solutions[step.node] = solution
    vanished = system.dw is not None and not bool(system.dw.any())
    # Solving would give an input of zeros.
    if output is None and vanished and G is not None and bool(G.any()):
        raise PathBroken(
            step.node,
            "every gradient of its weight is 0 though that of its output is not: they underflow "
            "the type they were sent in, or its input is 0; the equations do not tell which",
            solution,
        )
    if solution.rank is not None and solution.rank < read:
        why = ""
        if vanished:
            why = (
                ": every gradient of its weight is 0: all outputs are inactive or saturated, or "
                "the gradients are too small for the type they were sent in"
            )
        elif output is not None and output.mask is not None:
            silent = int((~output.mask).sum())
            why = (
                f": {silent} of its {output.mask.numel()} outputs give no equation (inactive, not "
                "read, or saturated beyond the precision)"
            )
        raise PathBroken(
            step.node, f"the equations have rank {solution.rank} of {read} unknowns{why}", solution
        )
    if solution.residual > CONTRADICTION:
        raise PathBroken(
            step.node,
            f"the equations contradict each other (relative residual {solution.residual:.2f})",
            solution,
        )
    mask = None if step.quality is Quality.EXACT else system.convolution.read_pixels(system.w)
    relative = max(ROUNDING * EPSILON, state.precision, solution.residual)
    relative *= solution.condition or 1e4
    return Known(solution.x, mask, relative * float(solution.x.abs().max()))


def _output(o: str, state: State) -> Known | None:
    """A layer's output that no step had to compute: known by now, or one activation away."""
    if value(o) in state.known:
        return state.known[value(o)]
    for use in state.graph.uses[o]:
        y, op = value(use.node.outputs[0]), use.node.op
        if isinstance(op, Activation) and op.monotone and y in state.known:
            return pre_activation(ActivationInverse(use.node.name, value(o), (y,)), state)
    return None
