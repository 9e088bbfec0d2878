"""Composes the stages: file -> graph -> counts -> leak path -> rules -> confirmation -> report."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakaudit import __version__
from leakaudit.counting.count import count, verdict
from leakaudit.counting.geometry import geometry_of
from leakaudit.errors import AuditError, LeakauditError, UsageError
from leakaudit.findings import (
    AuditReport,
    Finding,
    ImageReport,
    InputReport,
    LayerReport,
    ModelReport,
    RuleText,
    Severity,
    Skipped,
)
from leakaudit.frontends import registry
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph, Node
from leakaudit.graph.operators import (
    Add,
    Conv,
    Identity,
    Linear,
    Reshape,
    Sub,
    Transpose,
    Unsupported,
)
from leakaudit.leakpath.derivations.arithmetic import BranchValue
from leakaudit.leakpath.derivations.general import AddedParameterGradient, AffineGradient
from leakaudit.leakpath.facts import Derivation, Kind, gradient
from leakaudit.leakpath.path import LeakPath, find_leak_path
from leakaudit.rules.engine import LayerFacts, ModelFacts, apply
from leakaudit.rules.rule import Rule

if TYPE_CHECKING:
    from leakaudit.rconv.confirm import ConfirmOptions, ConfirmResult

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """How to audit.

    Attributes:
        rules: The rules to apply, selection done.
        load: How to read a model.
        counting: `exact` or `slides`.
        loss: `auto` or one of the losses of the threat model.
        confirm: How to confirm, None for the static audit.
        save_images: Folder for pictures of probe, reconstruction and difference.
    """

    rules: tuple[Rule, ...]
    load: LoadOptions = field(default_factory=LoadOptions)
    counting: str = "exact"
    loss: str = "auto"
    confirm: ConfirmOptions | None = None
    save_images: Path | None = None


def require_confirmation() -> None:
    """Check that confirmation can run.

    Raises:
        UsageError: torch or onnxruntime is not installed.
    """
    missing = [name for name in ("torch", "onnxruntime") if not importlib.util.find_spec(name)]
    if missing:
        raise UsageError(
            f"confirmation needs {' and '.join(missing)}: install the extra with "
            "pip install 'leakaudit[confirm]', or use --no-confirm for the static audit"
        )


def audit_all(
    targets: Sequence[str], options: AuditOptions, progress: Progress = lambda _text: None
) -> AuditReport:
    """Audit every target; one that cannot be audited is reported, and the others go on.

    Raises:
        UsageError: The options do not fit a model.
    """
    models: list[ModelReport] = []
    for target in targets:
        try:
            expanded = registry.expand(target)
        except AuditError as error:
            models.append(_failed(target, error))
            continue
        models.extend(audit(name, options, progress) for name in expanded)
    return AuditReport(__version__, tuple(models), tuple(map(_rule_text, options.rules)))


def _rule_text(rule: Rule) -> RuleText:
    return RuleText(
        id=rule.id,
        slug=rule.slug,
        title=rule.title,
        severity=rule.severity,
        precision=rule.precision,
        why=rule.why,
        remedy=rule.remedy,
        references=rule.references,
        url=rule.url,
        about_path=rule.id in PATH_RULES,
    )


def audit(
    target: str, options: AuditOptions, progress: Progress = lambda _text: None
) -> ModelReport:
    """Audit one model. Its failure is part of the report.

    Raises:
        UsageError: The options do not fit the model.
    """
    try:
        return _audit(target, options, lambda text: progress(f"{target}: {text}"))
    except AuditError as error:
        return _failed(target, error)


def _failed(target: str, error: LeakauditError) -> ModelReport:
    try:
        file_format = registry.format_of(target)
    except AuditError:
        file_format = "unknown"
    return ModelReport(target, file_format, None, error=str(error))


def _audit(target: str, options: AuditOptions, progress: Progress) -> ModelReport:
    progress("reading")
    graph = registry.load(target, options.load)
    unsupported = [node for node in graph.nodes if isinstance(node.op, Unsupported)]
    with_weights = [node for node in graph.nodes if isinstance(node.op, Conv | Linear)]
    if not with_weights and not unsupported:
        raise AuditError(
            target,
            "it has no convolution and no dense layer",
            "audit the file that holds the network's layers",
        )
    progress("searching the leak path")
    path = find_leak_path(graph, choose_loss(graph, options.loss))
    layers = tuple(_layer(graph, node, path, options.counting) for node in with_weights)
    findings = apply(
        options.rules,
        [
            _layer_facts(graph, graph.node(layer.name), layer, path)
            for layer in layers
            if layer.counts is not None
        ],
        _model_facts(graph, layers, unsupported, path),
    )
    notes = _notes(graph, options)
    skipped = [Skipped(n.name, f"unsupported operator {_kind(n)}") for n in unsupported]
    images: tuple[ImageReport, ...] = ()
    if options.confirm is not None and options.counting == "exact":
        findings, images, problem = _confirm(target, graph, path, findings, options, progress)
        if problem:
            skipped.append(Skipped("confirmation", problem))
    return ModelReport(
        target=target,
        format=graph.format,
        sha256=registry.sha256(target),
        inputs=tuple(InputReport(name, graph.tensors[name].shape) for name in graph.inputs),
        complete=not unsupported,
        counting=options.counting,
        layers=layers,
        leak_path=path.report,
        findings=findings,
        skipped=tuple(skipped),
        images=images,
        notes=notes,
    )


def choose_loss(graph: Graph, loss: str) -> str:
    """The loss meant by `auto`: logistic for one output per example, cross-entropy otherwise."""
    if loss != "auto":
        return loss
    shape = graph.tensors[graph.outputs[0]].shape if graph.outputs else ()
    return "bce" if shape[1:] in ((), (1,)) else "cross-entropy"


def _layer(graph: Graph, node: Node, path: LeakPath, counting: str) -> LayerReport:
    rank = path.knowledge.rank(gradient(node.outputs[0]))
    counts = count(graph, node, counting, rank)
    notes = []
    if rank is not None:
        notes.append(
            "averaging above sends many positions the same gradient: its rank over positions is "
            f"at most {rank}"
        )
    if counts.unread:
        notes.append(f"{counts.unread} unknowns are read by no tap and cannot be recovered")
    weight = node.parameter("weight") or ""
    if graph.parameter_uses[weight] > 1:
        notes.append("the weight is shared with another layer: its gradient is a sum")
    if not graph.parameters[weight].trainable:
        notes.append("the weight is frozen: it sends no gradient")
    return LayerReport(
        name=node.name,
        op=type(node.op).__name__.lower(),
        origin=node.origin,
        input_shape=graph.tensors[node.inputs[0]].shape,
        output_shape=graph.tensors[node.outputs[0]].shape,
        parameters=_hyperparameters(graph, node),
        counts=counts,
        verdict=verdict(counts, counting),
        note="; ".join(notes),
    )


def _hyperparameters(graph: Graph, node: Node) -> dict[str, object]:
    bias = node.parameter("bias") is not None
    match node.op:
        case Conv() as op:
            return {
                "filters": graph.parameters[node.parameter("weight") or ""].shape[0],
                "kernel": list(op.kernel),
                "stride": list(op.stride),
                "padding_begin": list(op.padding_begin),
                "padding_end": list(op.padding_end),
                "dilation": list(op.dilation),
                "groups": op.groups,
                "bias": bias,
            }
        case Linear() as op:
            return {
                "in_features": op.in_features,
                "out_features": op.out_features,
                "bias": bias,
            }
        case _:
            raise TypeError(f"{node.name} has no weights")


def _layer_facts(graph: Graph, node: Node, layer: LayerReport, path: LeakPath) -> LayerFacts:
    geometry = geometry_of(graph, node)
    weight, bias = node.parameter("weight") or "", node.parameter("bias")
    counts = layer.counts
    if counts is None:
        raise ValueError(f"{layer.name} is not counted")
    return LayerFacts(
        name=layer.name,
        operator=layer.op,
        fingerprint_parts=(
            "x".join(map(str, layer.input_shape)),
            "x".join(map(str, layer.output_shape)),
            *(f"{key}={value}" for key, value in sorted(layer.parameters.items())),
        ),
        symbols={
            "X": counts.unknowns,
            "unread": counts.unread,
            "A": counts.gradient_constraints,
            "B": counts.weight_constraints,
            "redundant": counts.redundant,
            "bound": counts.rank_bound,
            "gradient_bound": counts.gradient_rank_bound,
            "N": geometry.channels,
            "F": geometry.filters,
            "K": prod(axis.kernel for axis in geometry.axes),
            "L": prod(axis.positions for axis in geometry.axes[1:]),
            "g": geometry.groups,
            "batch": geometry.axes[0].size,
            "positions": prod(axis.positions for axis in geometry.axes),
            "is_linear": isinstance(node.op, Linear),
            "has_bias": bias is not None,
            "trainable": geometry.observed,
            "bias_trainable": bias is not None and graph.parameters[bias].trainable,
            "weight_shared": graph.parameter_uses[weight] > 1,
            "path_reaches": node.inputs[0] in _reached(path),
            "reads_input": _moved_from(graph, node.inputs[0]) in graph.inputs,
        },
    )


def _reached(path: LeakPath) -> set[str]:
    """Tensors whose value follows from the gradients, in whatever quality."""
    return {fact.tensor for fact in path.knowledge.history if fact.kind is Kind.VALUE}


def _model_facts(
    graph: Graph, layers: Sequence[LayerReport], unsupported: Sequence[Node], path: LeakPath
) -> ModelFacts:
    report = path.report
    added = _passed(path, AddedParameterGradient)
    branches = [
        name
        for name in _passed(path, AffineGradient, BranchValue)
        if isinstance(graph.node(name).op, Add | Sub) and _operands(graph, name) > 1
    ]
    return ModelFacts(
        symbols={
            "reaches_input": report.reaches_input,
            "complete": not unsupported,
            "reached": len(_reached(path)),
            "furthest_size": report.furthest_size,
            "input_size": sum(prod(graph.tensors[name].shape) for name in graph.inputs),
            "layers": len(layers),
            "unsupported": len(unsupported),
            "position_embedding": bool(added),
            "branch_sums": len(branches),
            "stops": len(report.stopped),
            "added_at": ", ".join(added),
            "branches": ", ".join(branches),
            "stopped_by": "; ".join(
                f"{stop.at} ({graph.node(stop.at).origin})" for stop in report.stopped
            ),
            "input": path.target.tensor
            if report.reaches_input and path.target
            else ", ".join(graph.inputs),
            "furthest": (report.furthest or "")
            + (", where it is read," if report.furthest in graph.inputs else ""),
            "unsupported_names": ", ".join(dict.fromkeys(_kind(node) for node in unsupported)),
        },
        fingerprint_parts=tuple(
            f"{layer.name}:{layer.op}:{'x'.join(map(str, layer.input_shape))}" for layer in layers
        ),
    )


def _passed(path: LeakPath, *kinds: type[Derivation]) -> list[str]:
    """Nodes at which the path takes a step of these kinds, in the order of the path."""
    return list(dict.fromkeys(step.node for step in path.steps if isinstance(step, kinds)))


def _operands(graph: Graph, name: str) -> int:
    """How many of a node's inputs are activations."""
    return sum(operand in graph.tensors for operand in graph.node(name).inputs)


def _moved_from(graph: Graph, tensor: str) -> str:
    """The tensor that this one is only a rearrangement of."""
    while (node := graph.producers.get(tensor)) is not None:
        if not isinstance(node.op, Reshape | Transpose | Identity):
            break
        tensor = node.inputs[0]
    return tensor


def _kind(node: Node) -> str:
    return node.op.kind if isinstance(node.op, Unsupported) else node.origin


def _notes(graph: Graph, options: AuditOptions) -> tuple[str, ...]:
    notes = []
    if any(p.trainable_assumed and p.trainable for p in graph.parameters.values()):
        notes.append(
            "the format does not say which parameters are trained: all stored weights are taken "
            "to send their gradient (--frozen PATTERN excludes some)"
        )
    if options.confirm is not None and options.counting == "slides":
        notes.append("--counting slides is a comparison of formulas: nothing was confirmed")
    return tuple(notes)


def _confirm(
    target: str,
    graph: Graph,
    path: LeakPath,
    findings: tuple[Finding, ...],
    options: AuditOptions,
    progress: Progress,
) -> tuple[tuple[Finding, ...], tuple[ImageReport, ...], str | None]:
    """The findings with their evidence, the pictures, and why nothing could be run."""
    from leakaudit.rconv.confirm import confirm

    if options.confirm is None:
        raise ValueError("confirmation is off")
    flagged = list(dict.fromkeys(f.layer for f in findings if f.layer is not None))
    settings = replace(options.confirm, loss=choose_loss(graph, options.loss))
    file = target if graph.format == "onnx" else None
    result = confirm(graph, path, flagged, settings, file, progress)
    evidenced = []
    for finding in findings:
        if finding.layer is not None:
            finding = replace(finding, confirmation=result.layers.get(finding.layer))
        elif path.target is not None and finding.rule in PATH_RULES:
            finding = replace(finding, confirmation=result.model)
        evidenced.append(finding)
    return tuple(evidenced), _save_images(target, result, options), result.problem


PATH_RULES = ("LA004", "LA005", "LA009", "LA010")


def _save_images(
    target: str, result: ConfirmResult, options: AuditOptions
) -> tuple[ImageReport, ...]:
    if options.save_images is None or result.original is None or result.reconstruction is None:
        return ()
    from leakaudit.report.images import write_images

    def numbers(image: Any) -> Any:
        return image.double().numpy()

    stem = f"{Path(target.replace(':', '-')).stem}-{(registry.sha256(target) or target)[:8]}"
    return (
        write_images(
            options.save_images, stem, numbers(result.original), numbers(result.reconstruction)
        ),
    )


def exit_code(report: AuditReport, fail_on: Severity) -> int:
    """0 nothing at or above `fail_on`, 1 findings, 3 nothing audited or something not audited.

    An incomplete audit weighs more than findings: a gate fails on both, and only 3 says that the
    list of findings may be too short.
    """
    if not report.models or any(m.error or not m.complete for m in report.models):
        return 3
    found = (finding for model in report.models for finding in model.findings)
    return 1 if any(finding.severity.at_least(fail_on) for finding in found) else 0


def incomplete(model: ModelReport) -> str | None:
    """One line on why an audit is incomplete and what to do; None where it is complete."""
    if model.error:
        return model.error
    if model.complete:
        return None
    kinds = ", ".join(dict.fromkeys(skipped.reason for skipped in model.skipped))
    return (
        f"{model.target}: the audit is incomplete ({kinds}); export the model with standard "
        "operators, or judge these by hand (`leakaudit explain LA006`)"
    )
