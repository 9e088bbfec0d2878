"""Confirmation: play the client on a probe, attack its gradient, compare with the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from leakaudit.counting.count import bound_of
from leakaudit.errors import AuditError
from leakaudit.findings import Confirmation, Scope, Status
from leakaudit.graph import Graph, Node
from leakaudit.graph.operators import Linear
from leakaudit.leakpath.derivations.activation import invertible
from leakaudit.leakpath.path import LeakPath
from leakaudit.rconv.device import choose_device
from leakaudit.rconv.execute import NotExecutable
from leakaudit.rconv.layer import layer_system
from leakaudit.rconv.metrics import mse, psnr, ssim
from leakaudit.rconv.onnx_check import check_against_onnxruntime
from leakaudit.rconv.probes import Probe, is_image_shape, load_probe, make_probe
from leakaudit.rconv.reconstruct import Reconstruction, reconstruct
from leakaudit.rconv.solvers.interface import Solution
from leakaudit.rconv.solvers.solve import solve_layer
from leakaudit.rconv.state import Known
from leakaudit.rconv.victim import GRADIENT_DTYPES, SharedGradient, share_gradient

# A reconstruction counts as one when its mean squared error is at most this share of the mean
# square of what was to be recovered: 40 dB below it.
SUCCESS = 1e-4

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ConfirmOptions:
    """How to confirm. `time_budget` is in seconds, None for none; it is checked between layers."""

    device: str = "auto"
    gradient_dtype: str = "float32"
    loss: str = "cross-entropy"
    seed: int = 0
    probe: Path | None = None
    time_budget: float | None = None


@dataclass(frozen=True, slots=True)
class ConfirmResult:
    """Evidence by what it is about.

    Attributes:
        model: For findings about the model: the path's end.
        layers: Per layer with weights.
        original: The probe (N, H, W) where it is an image, and `reconstruction` what came back.
        problem: Why nothing could be run, None where it could.
    """

    model: Confirmation
    layers: Mapping[str, Confirmation] = field(default_factory=dict)
    original: Tensor | None = None
    reconstruction: Tensor | None = None
    problem: str | None = None


def confirm(
    graph: Graph,
    path: LeakPath,
    flagged: Sequence[str],
    options: ConfirmOptions,
    file: str | None = None,
    progress: Progress = lambda _text: None,
) -> ConfirmResult:
    """Confirm a leak path end to end, and every flagged layer at least locally.

    Args:
        graph: The network.
        path: Its leak path.
        flagged: Names of the layers to confirm.
        options: Device, precision, probe.
        file: The ONNX file behind the graph, for the comparison with onnxruntime.
        progress: Told what is being done.

    Raises:
        UsageError: The options do not fit (no CUDA, --probe for a model without images).
        AuditError: Weights cannot be read, or onnxruntime disagrees.
    """
    device = choose_device(options.device)
    base = Confirmation(
        Status.NOT_RUN,
        Scope.NONE,
        "",
        device=device.type,
        gradient_dtype=options.gradient_dtype,
        seed=options.seed,
    )
    problem = not_confirmable(graph)
    if problem:
        return _not_run(base, flagged, problem)
    started = time.perf_counter()
    progress("reading weights")
    weights = load_weights(graph, device)
    probe, inputs = _inputs(graph, options, device)
    base = replace(base, probe=probe.name)
    try:
        if file is not None:
            progress("comparing with onnxruntime")
            check_against_onnxruntime(graph, file, weights, inputs)
        progress("computing the client's gradient")
        dtype = GRADIENT_DTYPES[options.gradient_dtype]
        shared = share_gradient(graph, weights, inputs, options.loss, dtype, options.seed)
    except NotExecutable as error:
        return _not_run(base, flagged, f"the graph cannot be run: {error}")
    progress("reconstructing along the leak path")
    walk = time.perf_counter()
    result = reconstruct(graph, weights, shared.gradients, options.loss)
    seconds = time.perf_counter() - walk
    model = _end_to_end(base, path, result, shared, seconds)

    layers: dict[str, Confirmation] = {}
    for name in flagged:
        node = graph.node(name)
        along = _along_path(base, node, result, shared)
        if along is not None and along.status is Status.CONFIRMED:
            layers[name] = along
        elif isinstance(node.op, Linear):
            layers[name] = along or replace(base, reason="no leak path reaches this layer")
        elif _over(started, options.time_budget):
            layers[name] = replace(base, reason="the time budget was used up")
        else:
            progress(f"solving {name} locally")
            local = confirm_locally(base, graph, node, weights, shared, dtype)
            reason = f"{along.reason}; locally: {local.reason}" if along else local.reason
            layers[name] = replace(local, reason=reason)

    original = reconstruction = None
    if probe.is_image and result.target in graph.inputs and result.target in result.values:
        original = inputs[result.target][0].cpu()
        reconstruction = result.values[result.target].tensor[0].cpu()
    return ConfirmResult(model, layers, original, reconstruction)


def not_confirmable(graph: Graph) -> str | None:
    """Why a graph cannot be attacked as a whole, None where it can."""
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


def confirm_locally(
    base: Confirmation,
    graph: Graph,
    node: Node,
    weights: Mapping[str, Tensor],
    shared: SharedGradient,
    dtype: torch.dtype,
) -> Confirmation:
    """Solve one convolution given its true output gradient, and its output as far as an attacker
    who knew the activation after it would know it."""
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
    system = layer_system(
        graph,
        node,
        weights,
        observed,
        G=G,
        o=_visible_output(graph, node, shared),
        precision=torch.finfo(dtype).eps,
    )
    solution = solve_layer(system)
    bound = bound_of(graph, node)
    judged = _judge(base, Scope.LOCAL, solution.x, shared.values[x], solution)
    given = "given the true gradient of its output"
    if solution.rank is not None and solution.rank < solution.unknowns:
        unread = f" ({bound.unread} are read by no tap)" if bound.unread else ""
        judged = replace(
            judged,
            status=Status.NOT_REPRODUCED,
            reason=f"rank {solution.rank} of {solution.unknowns} unknowns{unread}, {given}",
        )
    else:
        judged = replace(judged, reason=f"{judged.reason}, {given}")
    return replace(judged, seconds=time.perf_counter() - started)


def _visible_output(graph: Graph, node: Node, shared: SharedGradient) -> Known | None:
    """o as the activation after the layer lets it be known; None where it hides it."""
    from leakaudit.graph.operators import Activation, Relu

    (o,) = node.outputs
    value = shared.values[o]
    uses = graph.uses[o]
    if len(uses) != 1 or not isinstance(uses[0].node.op, Activation):
        return Known(value)
    op = uses[0].node.op
    if isinstance(op, Relu):
        mask = value > 0
        return Known(torch.where(mask, value, torch.zeros_like(value)), mask)
    return Known(value) if invertible(op) else None


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
) -> Confirmation:
    base = replace(base, scope=Scope.END_TO_END, attempts=result.attempts, seconds=seconds)
    if path.target is None:
        return replace(base, scope=Scope.NONE, reason="no leak path", seconds=None)
    if result.broken is not None:
        solution = result.broken.solution
        return replace(
            base,
            status=Status.NOT_REPRODUCED,
            reason=f"the path breaks off at {result.broken.node}: {result.broken.reason}",
            rank=solution.rank if solution else None,
            unknowns=solution.unknowns if solution else None,
            condition=solution.condition if solution else None,
            residual=solution.residual if solution else None,
        )
    tensor = path.target.tensor
    known = result.values[tensor]
    last = list(result.solutions.values())[-1] if result.solutions else None
    judged = _judge(base, Scope.END_TO_END, known.tensor, shared.values[tensor], last, known.mask)
    return replace(judged, seconds=seconds)


def _along_path(
    base: Confirmation, node: Node, result: Reconstruction, shared: SharedGradient
) -> Confirmation | None:
    """The layer's input as the walk along the path recovered it, None where it did not."""
    tensor = node.inputs[0]
    known = result.values.get(tensor)
    if known is None:
        if result.broken is not None and result.broken.node == node.name:
            return replace(base, reason=f"end to end: {result.broken.reason}")
        return None
    solution = result.solutions.get(node.name)
    return _judge(base, Scope.END_TO_END, known.tensor, shared.values[tensor], solution, known.mask)


def _judge(
    base: Confirmation,
    scope: Scope,
    got: Tensor,
    truth: Tensor,
    solution: Solution | None,
    mask: Tensor | None = None,
) -> Confirmation:
    """Compare a reconstruction with the truth. A mask with holes never counts as confirmed."""
    error = mse(got, truth)
    scale = max(float(truth.double().square().mean()), 1e-300)
    image = is_image_shape(tuple(truth.shape))
    holes = 0 if mask is None else int((~mask).sum())
    if holes:
        status = Status.NOT_REPRODUCED
        reason = f"{holes} of {truth.numel()} values cannot be recovered"
    elif error <= SUCCESS * scale:
        status, reason = Status.CONFIRMED, "reconstructed"
    elif solution is not None and solution.rank is None:
        status = Status.INCONCLUSIVE
        reason = f"off by {error / scale:.1e} of the signal; this solver cannot tell the rank"
    else:
        status = Status.NOT_REPRODUCED
        reason = f"the reconstruction is off by {error / scale:.1e} of the signal"
        if solution is not None and solution.condition is not None:
            reason += f" (condition number {solution.condition:.1e})"
    return replace(
        base,
        status=status,
        scope=scope,
        reason=reason,
        solver=f"{solution.solver}: {solution.reason}"
        if solution
        else "division by the bias gradient",
        rank=solution.rank if solution else None,
        unknowns=truth.numel(),
        condition=solution.condition if solution else None,
        residual=solution.residual if solution else None,
        mse=error,
        psnr=psnr(error) if image else None,
        ssim=ssim(got, truth) if image else None,
    )


def _over(started: float, budget: float | None) -> bool:
    return budget is not None and time.perf_counter() - started > budget


def _not_run(base: Confirmation, flagged: Sequence[str], problem: str) -> ConfirmResult:
    confirmation = replace(base, reason=problem)
    return ConfirmResult(confirmation, dict.fromkeys(flagged, confirmation), problem=problem)
