"""Local confirmation: one convolution, given what no attacker has, its true output gradient."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from leakaudit.counting.count import bound_of
from leakaudit.findings import Confirmation, Scope, Status
from leakaudit.graph import Graph, Node
from leakaudit.graph.operators import Activation, BatchNorm, Conv, Identity
from leakaudit.leakpath.derivations.activation import invertible, monotone
from leakaudit.rconv import activations
from leakaudit.rconv.evidence import judge
from leakaudit.rconv.layer import convolution_of, layer_system
from leakaudit.rconv.metrics import mse, psnr, ssim
from leakaudit.rconv.prior import smoothest
from leakaudit.rconv.probes import is_image_shape, make_probe
from leakaudit.rconv.solvers.interface import Solution
from leakaudit.rconv.solvers.solve import solve_layer
from leakaudit.rconv.state import Known
from leakaudit.rconv.victim import SharedGradient

# What a solve costs at most in practice, in forward passes of the layer: four kernels an
# iteration, in float64 (twice the cost), some two hundred iterations.
PASSES = 4 * 2 * 200


def layer_cost(graph: Graph, node: Node) -> int:
    """Multiplications of one forward pass of a convolution."""
    if not isinstance(node.op, Conv):
        return 0
    weight = graph.parameters[node.parameter("weight") or ""].shape
    return prod(weight) * prod(graph.tensors[node.outputs[0]].shape[2:])


def confirm_locally(
    base: Confirmation,
    graph: Graph,
    node: Node,
    weights: Mapping[str, Tensor],
    shared: SharedGradient,
    dtype: torch.dtype,
) -> Confirmation:
    """Solve one convolution given its true output gradient.

    Its output is used too as far as an attacker who knew the activation behind it would know it.
    """
    (x,), (o,) = node.inputs, node.outputs
    observed = {
        name: shared.gradients[name].double()
        for _, name in node.parameters
        if name in shared.gradients and graph.parameter_uses[name] == 1
    }
    if node.parameter("weight") not in observed:
        return replace(base, reason="its weight's gradient is not observed")
    G = shared.activation_gradients.get(o)
    if G is None:
        return replace(base, reason="the loss does not depend on it")
    started = time.perf_counter()
    output = _visible_output(graph, node, weights, shared)
    system = layer_system(
        graph,
        node,
        weights,
        observed,
        G=G,
        o=output,
        precision=torch.finfo(dtype).eps,
    )
    solution = solve_layer(system)
    bound = bound_of(graph, node)
    judged = judge(base, Scope.LOCAL, solution.x, shared.values[x], solution)
    given = "given the true gradient of its output"
    if output is not None:
        given += ", and its output where the activation shows it"
    if solution.rank is not None and solution.rank < solution.unknowns:
        unread = f" ({bound.unread} are read by no tap)" if bound.unread else ""
        judged = replace(
            judged,
            status=Status.NOT_REPRODUCED,
            reason=f"rank {solution.rank} of {solution.unknowns} unknowns{unread}, {given}"
            + _with_prior(solution, shared.values[x]),
        )
    else:
        judged = replace(judged, reason=f"{judged.reason}, {given}")
    return replace(judged, seconds=time.perf_counter() - started)


def confirm_synthetically(
    base: Confirmation, graph: Graph, node: Node, weights: Mapping[str, Tensor], dtype: torch.dtype
) -> Confirmation:
    """Solve one convolution for a made-up input and output gradient.

    For networks that cannot be run whole: it shows what the layer's equations give, for generic
    numbers instead of those that this network would produce.
    """
    weight = node.parameter("weight") or ""
    if not graph.parameters[weight].trainable:
        return replace(base, reason="its weight's gradient is not observed")
    started = time.perf_counter()
    convolution = convolution_of(graph, node)
    truth = make_probe(convolution.input_shape, base.seed or 0).values.to(weights[weight])
    o = convolution.output(truth, weights[weight])
    generator = torch.Generator().manual_seed(base.seed or 0)
    G = torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o)
    sent = convolution.weight_gradient(truth, G).to(dtype).double()
    system = layer_system(
        graph, node, weights, {weight: sent}, G=G, o=None, precision=torch.finfo(dtype).eps
    )
    solution = solve_layer(system)
    judged = judge(base, Scope.LOCAL, solution.x, truth, solution)
    reason = f"{judged.reason}, given a synthetic input and output gradient"
    if solution.rank is not None and solution.rank < solution.unknowns:
        reason = f"rank {solution.rank} of {solution.unknowns} unknowns, {reason}"
    return replace(judged, reason=reason, seconds=time.perf_counter() - started)


def _with_prior(solution: Solution, truth: Tensor) -> str:
    """How much of a picture comes back all the same, where it can be told."""
    if solution.null_space is None or truth.shape[0] != 1 or not is_image_shape(tuple(truth.shape)):
        return ""
    picture = smoothest(solution.x, solution.null_space)
    return (
        f"; the smoothest picture that fits the equations has PSNR "
        f"{psnr(mse(picture, truth)):.1f} dB and SSIM {ssim(picture, truth):.2f}"
    )


def _visible_output(
    graph: Graph, node: Node, weights: Mapping[str, Tensor], shared: SharedGradient
) -> Known | None:
    """o where the activation behind the layer shows it; None where nothing does.

    Batch normalisation in evaluation mode may stand between: it is undone with known constants.
    """
    (o,) = node.outputs
    tensor = o
    while len(graph.uses[tensor]) == 1:
        reader = graph.uses[tensor][0].node
        if isinstance(reader.op, Activation) and not isinstance(reader.op, Identity):
            if not monotone(reader.op):
                return None
            slope = weights.get(reader.parameter("slope") or "")
            y = shared.values[reader.outputs[0]]
            known = torch.isfinite(activations.inverse(reader.op, y, slope))
            if not invertible(reader.op) and not bool(known.any()):
                return None
            return Known(torch.where(known, shared.values[o], 0.0), known)
        if not isinstance(reader.op, Identity | BatchNorm):
            return None
        tensor = reader.outputs[0]
    return None
