"""Confirmation: play the client on a probe, attack its gradient, compare with the truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from leakaudit.attack.reconstruct import Reconstruction, reconstruct
from leakaudit.confirm.beyond import may_go_on, searched
from leakaudit.confirm.client import GRADIENT_DTYPES, SharedGradient, choose_device, share_gradient
from leakaudit.confirm.given_output import solve_given_output
from leakaudit.confirm.one_layer import (
    confirm_locally,
    confirm_synthetically,
    layer_cost,
    local_passes,
    partly_along_path,
)
from leakaudit.confirm.onnxruntime_check import check_against_onnxruntime
from leakaudit.confirm.probes import Probe, is_image_shape, load_probe, make_probe
from leakaudit.confirm.recovered import Recovered, RecoveredTensor, RecoveredUpToFactor
from leakaudit.errors import AuditError
from leakaudit.execute import NotExecutable
from leakaudit.facts.fact import Quality, value
from leakaudit.findings import Confirmation, Scope, Status
from leakaudit.graph import Graph, Node
from leakaudit.leakpath.path import LeakPath
from leakaudit.operators import Unsupported
from leakaudit.sandbox.limits import Limits
from leakaudit.solvers.interface import Solution

Progress = Callable[[str], None]

SYNTHETIC_COST = 10**8  # multiplications of a forward pass


@dataclass(frozen=True, slots=True)
class ConfirmOptions:
    """How to confirm. `time_budget` is in seconds, None for none; it is checked between layers."""

    device: str = "auto"
    gradient_dtype: str = "float32"
    loss: str = "cross-entropy"
    seed: int = 0
    probe: Path | None = None
    time_budget: float | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class ConfirmResult:
    """Confirmations by what they are about, and what came back where it can be looked at.

    Attributes:
        model: For findings about the model: the path's end.
        layers: Per layer with weights.
        original: The probe's input that came back or partly did, (N, H, W).
        reconstruction: What came back of it.
        partial: The picture that fits the equations of a layer which do not fix its input, where
            that is `original`.
        beyond: The input, recovered by search behind the end of a path that stops; None where
            that was not tried or did not succeed, which says nothing.
        problem: Why nothing could be run, None where it could.
    """

    model: Confirmation
    layers: Mapping[str, Confirmation] = field(default_factory=dict)
    original: Tensor | None = None
    reconstruction: Tensor | None = None
    partial: Tensor | None = None
    beyond: Confirmation | None = None
    problem: str | None = None


def confirm(
    graph: Graph,
    path: LeakPath,
    layers: Sequence[str],
    options: ConfirmOptions,
    file: str | None = None,
    progress: Progress = lambda _text: None,
) -> ConfirmResult:
    """Confirm a leak path end to end, and each of these layers at least locally.

    Args:
        graph: The network.
        path: Its leak path.
        layers: Names of the layers to confirm.
        options: Device, precision, probe.
        file: The ONNX file behind the graph, for the comparison with onnxruntime.
        progress: Told what is being done.

    Raises:
        UsageError: The options do not fit (no CUDA, --probe for a model without images).
        AuditError: Weights cannot be read, or onnxruntime disagrees.
    """
    device = choose_device(options.device)
    base = _not_run(options, device)
    started = time.perf_counter()
    dtype = GRADIENT_DTYPES[options.gradient_dtype]
    progress("reading weights")
    weights = load_weights(graph, device)
    problem = not_confirmable(graph)
    if problem:
        return _layers_alone(base, graph, weights, layers, problem, dtype, progress)
    probe, inputs = _inputs(graph, options, device)
    base = replace(base, probe=probe.name)
    try:
        if file is not None:
            progress("comparing with onnxruntime")
            check_against_onnxruntime(graph, file, weights, inputs, options.limits)
        progress("computing the client's gradient")
        trained = time.perf_counter()
        shared = share_gradient(graph, weights, inputs, options.loss, dtype, options.seed)
    except NotExecutable as error:
        problem = f"the graph cannot be run: {error}"
        return _layers_alone(base, graph, weights, layers, problem, dtype, progress)
    # Training computes every layer three times: forward, and backward for input and weight.
    # The first pass of a process warms up; no machine computes less than 1e9 products a second.
    cost = sum(layer_cost(graph, node) for node in graph.nodes)
    per_pass = min(1e-9, (time.perf_counter() - trained) / 3 / max(cost, 1))
    progress("reconstructing along the leak path")
    walk = time.perf_counter()
    result = reconstruct(graph, weights, shared.gradients, options.loss)
    seconds = time.perf_counter() - walk
    model, reconstruction = _end_to_end(base, path, result, shared, seconds)
    beyond = None
    if result.target is not None and result.broken is None and may_go_on(path):
        progress("searching for the input behind the end of the path")
        left = _left(started, options.time_budget)
        beyond, picture, tried = searched(base, path, weights, result, shared, left)
        model = replace(model, attempts=(*model.attempts, tried))
        reconstruction = reconstruction if beyond is None else picture

    told: dict[str, Confirmation] = {}
    partial: dict[str, Tensor] = {}
    for name in layers:
        node = graph.node(name)
        along = _along_path(base, path, node, result, shared)
        if along is not None and along.status is Status.CONFIRMED:
            told[name] = along
            continue
        if not node.op.is_convolution:
            told[name] = along or replace(base, reason="no leak path reaches this layer")
            continue
        if too_long := _too_long(graph, node, per_pass, started, options.time_budget):
            told[name] = replace(base, reason=too_long)
            continue
        open_layer = result.open_layers.get(name)
        if open_layer is not None:
            progress(f"solving {name} as far as its equations go")
            found = partly_along_path(base, graph, node, open_layer, shared)
        else:
            progress(f"solving {name} locally")
            found = confirm_locally(base, graph, node, weights, shared, dtype)
        told[name] = found.confirmation
        if along and open_layer is None:
            reason = f"{along.reason}; locally: {found.confirmation.reason}"
            told[name] = replace(found.confirmation, reason=reason)
        if found.picture is not None:
            partial.setdefault(node.inputs[0], found.picture)

    target = graph.inputs[0] if beyond is not None else result.target
    if target not in graph.inputs:
        reconstruction = None  # features: nobody has put them in
    # Of several inputs one is shown: the one that came back, else the first that partly did.
    partly = next((name for name in graph.inputs if name in partial), None)
    shown = partly if reconstruction is None else target
    original = inputs[shown][0].cpu() if shown is not None else None
    return ConfirmResult(model, told, original, reconstruction, partial.get(shown or ""), beyond)


def confirm_given_output(graph: Graph, layer: str, options: ConfirmOptions) -> Confirmation:
    """Attack a layer by its weight constraints alone, given its true output.

    Args:
        graph: The network.
        layer: A convolution or dense layer, its weight frozen, say.
        options: Device, precision, probe.

    Raises:
        UsageError: The options do not fit.
        AuditError: Weights cannot be read.
    """
    device = choose_device(options.device)
    base = _not_run(options, device)
    weights = load_weights(graph, device)
    problem = not_confirmable(graph)
    if problem:
        return replace(base, reason=problem)
    probe, inputs = _inputs(graph, options, device)
    dtype = GRADIENT_DTYPES[options.gradient_dtype]
    try:
        shared = share_gradient(graph, weights, inputs, options.loss, dtype, options.seed)
    except NotExecutable as error:
        return replace(base, reason=f"the graph cannot be run: {error}")
    base = replace(base, probe=probe.name)
    return solve_given_output(base, graph, graph.node(layer), weights, shared)


def _not_run(options: ConfirmOptions, device: torch.device) -> Confirmation:
    return Confirmation(
        Status.NOT_RUN,
        Scope.NONE,
        "",
        device=device.type,
        gradient_dtype=options.gradient_dtype,
        seed=options.seed,
    )


def not_confirmable(graph: Graph) -> str | None:
    """Why a graph cannot be attacked as a whole, None where it can."""
    unsupported = [node.op.kind for node in graph.nodes if isinstance(node.op, Unsupported)]
    if unsupported:
        return f"the graph cannot be run: unsupported {', '.join(dict.fromkeys(unsupported))}"
    if len(graph.outputs) != 1:
        return (
            f"it has {len(graph.outputs)} outputs: which one the loss is computed from is not known"
        )
    if any(not graph.tensors[name].dtype.startswith(("float", "bfloat")) for name in graph.inputs):
        return "an input is not of floating type"
    if not any(parameter.trainable for parameter in graph.parameters.values()):
        return "no parameter is trained: no gradient is sent"
    return None


def load_weights(graph: Graph, device: torch.device) -> dict[str, Tensor]:
    """All stored parameters, floating ones as float64."""
    weights = {}
    for name in graph.parameters:
        array = graph.weights.load(name)
        if array.dtype.kind == "f" or array.dtype.name in ("bfloat16", "float16"):
            array = array.astype("float64")
        weights[name] = torch.from_numpy(array.copy()).to(device)
    return weights


def _inputs(
    graph: Graph, options: ConfirmOptions, device: torch.device
) -> tuple[Probe, dict[str, Tensor]]:
    """A probe for every graph input; the first image input gets the user's picture."""
    inputs: dict[str, Tensor] = {}
    main: Probe | None = None
    for number, name in enumerate(graph.inputs):
        shape = graph.tensors[name].shape
        if (
            options.probe is not None
            and main is None
            and (is_image_shape(shape) or number == len(graph.inputs) - 1)
        ):
            probe = main = load_probe(options.probe, shape)
        else:
            probe = make_probe(shape, options.seed + number)
        main = main or (probe if options.probe is None else None)
        inputs[name] = probe.values.to(device)
    if main is None:
        raise AuditError(graph.name, "it has no input", "export it with an input")
    return main, inputs


def _end_to_end(
    base: Confirmation,
    path: LeakPath,
    result: Reconstruction,
    shared: SharedGradient,
    seconds: float,
) -> tuple[Confirmation, Tensor | None]:
    """How the walk along the path ended, and what came back of its end as a picture."""
    base = replace(base, scope=Scope.END_TO_END, attempts=result.attempts, seconds=seconds)
    if path.target is None:
        return replace(base, scope=Scope.NONE, reason="no leak path", seconds=None), None
    if result.broken is not None:
        solution = result.broken.solution
        broken = replace(
            base,
            status=Status.NOT_REPRODUCED,
            reason=f"the path breaks off at {result.broken.node}: {result.broken.reason}",
            rank=solution.rank if solution else None,
            unknowns=solution.unknowns if solution else None,
            condition=solution.condition if solution else None,
            residual=solution.residual if solution else None,
        )
        return broken, None
    tensor = path.target.tensor
    last = list(result.solutions.values())[-1] if result.solutions else None
    judged = _recovered(path, tensor, result, last).judge(shared.values[tensor])
    return judged.confirmation(base, Scope.END_TO_END), judged.picture


def _left(started: float, budget: float | None) -> float:
    return math.inf if budget is None else max(0.0, budget - (time.perf_counter() - started))


def _recovered(
    path: LeakPath, tensor: str, result: Reconstruction, solution: Solution | None
) -> Recovered:
    """What the path found of a tensor, with the solution of the system that decides."""
    known = result.values[tensor]
    if _scaled(path, tensor):
        *_, (_, derivation) = path.knowledge.history[value(tensor)]
        solved = result.solutions.get(derivation.node)
        return RecoveredUpToFactor(known.tensor, known.mask, solved)
    return RecoveredTensor(known.tensor, solution, known.mask)


def _scaled(path: LeakPath, tensor: str) -> bool:
    """Whether the path gives a tensor's value up to one factor only."""
    return path.knowledge.quality(value(tensor)) is Quality.SCALED


def _along_path(
    base: Confirmation, path: LeakPath, node: Node, result: Reconstruction, shared: SharedGradient
) -> Confirmation | None:
    """The layer's input as the walk along the path recovered it, None where it did not."""
    tensor = node.inputs[0]
    known = result.values.get(tensor)
    if known is None:
        if result.broken is not None and result.broken.node == node.name:
            return replace(base, reason=f"end to end: {result.broken.reason}")
        if _scaled(path, tensor):
            reason = "its input is known up to one factor, beside the path that was walked"
            return replace(base, reason=reason)
        return None
    recovered = _recovered(path, tensor, result, result.solutions.get(node.name))
    return recovered.judge(shared.values[tensor]).confirmation(base, Scope.END_TO_END)


def _too_long(
    graph: Graph, node: Node, per_pass: float, started: float, budget: float | None
) -> str | None:
    """Why a layer is not solved locally: the time budget would not suffice."""
    needed = local_passes(graph, node) * per_pass * layer_cost(graph, node)
    if budget is None or needed <= _left(started, budget):
        return None
    return f"solving it locally does not fit into the time budget of {budget:g} s (--time-budget)"


def _layers_alone(
    base: Confirmation,
    graph: Graph,
    weights: Mapping[str, Tensor],
    layers: Sequence[str],
    problem: str,
    dtype: torch.dtype,
    progress: Progress,
) -> ConfirmResult:
    """The convolutions by themselves, for a network that cannot be run whole."""
    told = {}
    for name in layers:
        node = graph.node(name)
        told[name] = replace(base, reason=problem)
        # Several seconds a layer are the most that a generic answer is worth.
        if node.op.is_convolution and layer_cost(graph, node) <= SYNTHETIC_COST:
            progress(f"solving {name} for synthetic numbers")
            local = confirm_synthetically(base, graph, node, weights, dtype)
            told[name] = replace(local, reason=f"{problem}; {local.reason}")
    return ConfirmResult(replace(base, reason=problem), told, problem=problem)
