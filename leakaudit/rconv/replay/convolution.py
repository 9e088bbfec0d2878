"""Replay of the derivations of convolutions: here the equations are solved."""

from __future__ import annotations

import torch

from leakaudit.leakpath.derivations import convolution
from leakaudit.leakpath.facts import Kind, Quality, gradient, value
from leakaudit.rconv.layer import convolution_of, layer_system, read_pixels
from leakaudit.rconv.solvers.solve import solve_layer
from leakaudit.rconv.state import Known, PathBroken, State

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
    system = layer_system(
        state.graph,
        node,
        state.weights,
        state.gradients if Kind.GRADIENT in premises else {},
        G=state.known[gradient(o)].tensor if Kind.GRADIENT in premises else None,
        # Coarse gradients are worth the output as well, where deciding its sides has shown it.
        o=state.known[value(o)] if Kind.VALUE in premises else state.outputs.get(o),
        precision=state.precision,
    )
    solution = solve_layer(system, state.memory)
    state.solutions[step.node] = solution
    read = solution.unknowns - step.counts.get("unread", 0)
    if solution.rank is not None and solution.rank < read:
        why = ""
        if system.dw is not None and not bool(system.dw.any()):
            why = (
                ": every gradient of its weight is 0, for want of an active output or because they "
                "are too small for the type they were sent in"
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
    mask = None if step.quality is Quality.EXACT else read_pixels(system.convolution, system.w)
    relative = max(ROUNDING * EPSILON, state.precision, solution.residual)
    relative *= solution.condition or 1e4
    return Known(solution.x, mask, relative * float(solution.x.abs().max()))


def bias_gradient(step: convolution.BiasGradient, state: State) -> Known:
    """dl/do = db for a layer of one output position."""
    node = state.graph.node(step.node)
    db = state.gradients[node.parameter("bias") or ""]
    return Known(db.reshape(state.graph.tensors[node.outputs[0]].shape))
