"""Confirmation of one convolution: given what no attacker has, its true output gradient, or, where
the leak path leads up to it, given what the path found."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from leakaudit.attack.partial.inequalities import saturation_inequalities
from leakaudit.attack.partial.open_layer import OpenLayer
from leakaudit.attack.partial.picture import Range
from leakaudit.attack.reconstruct import overflow
from leakaudit.confirm.client import SharedGradient
from leakaudit.confirm.partial_attempts import partial_leak
from leakaudit.confirm.probes import is_image_shape, make_probe
from leakaudit.confirm.recovered import RecoveredTensor, is_picture
from leakaudit.counting.count import bound_of
from leakaudit.equations.convolution import convolution_of
from leakaudit.equations.known import Known
from leakaudit.equations.system import layer_system
from leakaudit.execute.activation import inverse
from leakaudit.findings import Confirmation, Scope, Status
from leakaudit.graph import Graph, Node
from leakaudit.operators import (
    Activation,
    BatchNorm,
    Clip,
    HardSigmoid,
    Identity,
    Relu,
    Sigmoid,
)
from leakaudit.solvers.solve import solve_layer

# What a solve costs at most in practice, in forward passes of the layer: four kernels an
# iteration, in float64 (twice the cost), some two hundred iterations.
PASSES = 4 * 2 * 200
# The same for the pictures of a partial leak: six applications of four kernels an iteration.
PARTIAL_PASSES = 6 * 4 * 2 * 200


@dataclass(frozen=True, slots=True)
class LocalResult:
    """The confirmation of one layer; where it leaks partly, the picture (N, H, W) of that."""

    confirmation: Confirmation
    picture: Tensor | None = None


def layer_cost(graph: Graph, node: Node) -> int:
    """Multiplications of one forward pass of a convolution."""
    if not node.op.is_convolution:
        return 0
    weight = graph.parameters[node.parameter("weight") or ""].shape
    return prod(weight) * prod(graph.tensors[node.outputs[0]].shape[2:])


def local_passes(graph: Graph, node: Node) -> int:
    """Forward passes of the layer that its local confirmation is worth at most in practice."""
    if not node.op.is_convolution or not is_image_shape(graph.tensors[node.inputs[0]].shape):
        return PASSES
    bound = bound_of(graph, node)
    return PASSES + (PARTIAL_PASSES if bound.rank < bound.unknowns else 0)


def confirm_locally(
    base: Confirmation,
    graph: Graph,
    node: Node,
    weights: Mapping[str, Tensor],
    shared: SharedGradient,
    dtype: torch.dtype,
) -> LocalResult:
    """Solve one convolution given its true output gradient.

    Its output is used too as far as an attacker who knew the activation behind it would know it.
    Where that does not give the input back and it is a picture, the most plausible picture that
    fits takes its place.
    """
    (x,), (o,) = node.inputs, node.outputs
    observed = {
        name: shared.gradients[name].double()
        for _, name in node.parameters
        if name in shared.gradients and graph.parameter_uses[name] == 1
    }
    overflown = overflow({name: shared.gradients[name] for name in observed})
    if overflown:
        return LocalResult(replace(base, reason=overflown))
    if node.parameter("weight") not in observed:
        return LocalResult(replace(base, reason="its weight's gradient is not observed"))
    G = shared.activation_gradients.get(o)
    if G is None:
        return LocalResult(replace(base, reason="the loss does not depend on it"))
    started = time.perf_counter()
    output = _visible_output(graph, node, weights, shared)
    precision = torch.finfo(dtype).eps
    system = layer_system(graph, node, weights, observed, G=G, o=output, precision=precision)
    solution = solve_layer(system)
    given = "given the true gradient of its output"
    if output is not None:
        given += ", and its output where the activation shows it"
    truth = shared.values[x]
    judged = RecoveredTensor(solution.x, solution).judge(truth)
    judged = judged.given(given, bound_of(graph, node).unread)
    picture = None
    if judged.status is not Status.CONFIRMED and is_picture(truth):
        bounds = saturation_inequalities(graph, node, weights, shared.values)
        if bounds is not None:
            bounds = bounds.without_bias(weights.get(node.parameter("bias") or ""))
        leak = partial_leak(system, solution, truth, value_range(graph, x), bounds)
        judged = leak.headline(judged)
        picture = judged.picture
    told = judged.confirmation(base, Scope.LOCAL)
    return LocalResult(replace(told, seconds=time.perf_counter() - started), picture)


def partly_along_path(
    base: Confirmation, graph: Graph, node: Node, layer: OpenLayer, shared: SharedGradient
) -> LocalResult:
    """What follows of a layer's input from the shared gradients alone.

    Where it is a picture, the most plausible one that fits.

    Args:
        base: What is common to all confirmations of this run.
        graph: The network.
        node: A convolution with fewer equations than unknowns.
        layer: Its equations, as the walk along the leak path found them.
        shared: The truth, to measure by.
    """
    started = time.perf_counter()
    truth = shared.values[node.inputs[0]]
    solution = solve_layer(layer.system)
    rank = (
        "" if solution.rank is None else f"rank {solution.rank} of {solution.unknowns} unknowns, "
    )
    judged = RecoveredTensor(solution.x, solution).judge(truth)
    judged = replace(judged, reason=f"{rank}from the shared gradients alone")
    if is_picture(truth):
        ends = value_range(graph, node.inputs[0])
        judged = partial_leak(layer.system, solution, truth, ends, layer.inequalities).headline(
            judged
        )
    told = judged.confirmation(base, Scope.END_TO_END)
    return LocalResult(replace(told, seconds=time.perf_counter() - started), judged.picture)


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
    judged = RecoveredTensor(solution.x, solution).judge(truth).confirmation(base, Scope.LOCAL)
    reason = f"{judged.reason}, given a synthetic input and output gradient"
    if solution.rank is not None and solution.rank < solution.unknowns:
        reason = f"rank {solution.rank} of {solution.unknowns} unknowns, {reason}"
    return replace(judged, reason=reason, seconds=time.perf_counter() - started)


def value_range(graph: Graph, tensor: str) -> Range | None:
    """Between which ends the values of an activation lie, None where the graph does not tell."""
    if tensor in graph.inputs:
        return 0.0, 1.0  # it is a picture
    match graph.producers[tensor].op:
        case Relu():
            return 0.0, math.inf
        case Sigmoid() | HardSigmoid():
            return 0.0, 1.0
        case Clip(low, high):
            return low, high
        case _:
            return None


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
            if not reader.op.monotone:
                return None
            slope = weights.get(reader.parameter("slope") or "")
            y = shared.values[reader.outputs[0]]
            known = torch.isfinite(inverse(reader.op, y, slope))
            if not reader.op.invertible and not bool(known.any()):
                return None
            return Known(torch.where(known, shared.values[o], 0.0), known)
        if not isinstance(reader.op, Identity | BatchNorm):
            return None
        tensor = reader.outputs[0]
    return None
