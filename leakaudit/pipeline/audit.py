"""Composes the stages: file -> graph -> counts -> leak path -> rules -> confirmation -> report."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from leakaudit import __version__
from leakaudit.config.targets import identity
from leakaudit.errors import AuditError, UsageError
from leakaudit.findings import (
    AuditReport,
    Finding,
    ImageReport,
    InputReport,
    ModelReport,
    RuleText,
    Severity,
    Skipped,
)
from leakaudit.frontends import registry
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph
from leakaudit.leakpath.path import LeakPath, find_leak_path
from leakaudit.operators import Unsupported
from leakaudit.pipeline.per_target import TargetOptions
from leakaudit.pipeline.rule_facts import layer_facts, layer_report, model_facts, operator_kind
from leakaudit.rules.engine import apply
from leakaudit.rules.rule import Rule
from leakaudit.rules.select import with_severities

if TYPE_CHECKING:
    from leakaudit.confirm.confirm import ConfirmOptions, ConfirmResult

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """How to audit.

    Attributes:
        rules: The rules to apply, selection done.
        load: How to read a model.
        loss: `auto` or one of the losses of the threat model.
        confirm: How to confirm, None for the static audit.
        save_images: Folder for pictures of probe, reconstruction and difference.
        per_target: What differs for some targets.
    """

    rules: tuple[Rule, ...]
    load: LoadOptions = field(default_factory=LoadOptions)
    loss: str = "auto"
    confirm: ConfirmOptions | None = None
    save_images: Path | None = None
    per_target: tuple[TargetOptions, ...] = ()

    def for_target(self, target: str) -> AuditOptions:
        """How to audit this target."""
        options = replace(self, per_target=())
        for other in self.per_target:
            if other.pattern.matches(target):
                options = replace(
                    options,
                    rules=with_severities(options.rules, other.severities),
                    load=replace(options.load, **other.load),
                    loss=other.loss or options.loss,
                )
        return options


Runner = Callable[[Sequence[tuple[str, AuditOptions]], Progress], list[ModelReport]]


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


def audit_each(
    audits: Sequence[tuple[str, AuditOptions]], progress: Progress = lambda _text: None
) -> list[ModelReport]:
    """Audit one target after the other (no folders).

    Raises:
        UsageError: The options do not fit a model.
    """
    return [audit(target, options, progress) for target, options in audits]


def audit_all(
    targets: Sequence[str],
    options: AuditOptions,
    progress: Progress = lambda _text: None,
    run: Runner = audit_each,
) -> AuditReport:
    """Audit every target; one that cannot be audited is reported, and the others go on.

    Targets are files, objects and folders, as the user named them. A file that several of them
    name, by itself or by a folder, is audited once. See `leakaudit.pipeline.many.processes` for a
    `run` that makes several audits at a time.

    Raises:
        UsageError: The options do not fit a model.
    """
    audits: list[tuple[str, AuditOptions]] = []
    without: list[tuple[int, ModelReport]] = []
    seen: set[str] = set()
    for target in targets:
        try:
            for name in registry.expand(target):
                if identity(name) not in seen:
                    seen.add(identity(name))
                    audits.append((name, options.for_target(name)))
        except AuditError as error:
            without.append((len(audits) + len(without), failed(target, error)))
    models = run(audits, progress)
    for position, model in without:
        models.insert(position, model)
    return report_of(models, options.rules)


def report_of(models: Sequence[ModelReport], rules: Sequence[Rule]) -> AuditReport:
    """The report of one run, with what the rules that were applied say of themselves."""
    return AuditReport(__version__, tuple(models), tuple(map(_rule_text, rules)))


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

    def tell(text: str) -> None:
        progress(f"{target}: {text}")

    try:
        tell("reading")
        graph = registry.load(target, options.load)
        return audit_graph(target, graph, options, tell, registry.sha256(target))
    except AuditError as error:
        return failed(target, error)


def failed(target: str, error: AuditError) -> ModelReport:
    """The report of a target that could not be audited."""
    try:
        file_format = registry.format_of(target)
    except AuditError:
        file_format = "unknown"
    return ModelReport(target, file_format, None, error=str(error))


def audit_graph(
    target: str,
    graph: Graph,
    options: AuditOptions,
    progress: Progress = lambda _text: None,
    sha256: str | None = None,
) -> ModelReport:
    """Audit a network that has been read.

    The report calls it `target`; where there is a digest, that is the file it was read from.

    Raises:
        AuditError: It has no layer with weights, or these cannot be read.
        UsageError: The options do not fit the model.
    """
    unsupported = [node for node in graph.nodes if isinstance(node.op, Unsupported)]
    with_weights = [node for node in graph.nodes if node.op.is_layer]
    if not with_weights and not unsupported:
        raise without_layers(target)
    progress("searching the leak path")
    path = find_leak_path(graph, choose_loss(graph, options.loss))
    layers = tuple(layer_report(graph, node, path) for node in with_weights)
    findings = apply(
        options.rules,
        [
            layer_facts(graph, graph.node(layer.name), layer, path)
            for layer in layers
            if layer.counts is not None
        ],
        model_facts(graph, layers, unsupported, path),
    )
    skipped = [Skipped(n.name, f"unsupported operator {operator_kind(n)}") for n in unsupported]
    images: tuple[ImageReport, ...] = ()
    if options.confirm is not None:
        findings, images, problem = _confirm(
            target, graph, path, findings, options, progress, sha256
        )
        if problem:
            skipped.append(Skipped("confirmation", problem))
    return ModelReport(
        target=target,
        format=graph.format,
        sha256=sha256,
        inputs=tuple(InputReport(name, graph.tensors[name].shape) for name in graph.inputs),
        complete=not unsupported,
        layers=layers,
        leak_path=path.report,
        findings=findings,
        skipped=tuple(skipped),
        images=images,
        notes=_notes(graph),
    )


def without_layers(target: str) -> AuditError:
    """The error of a model in which nothing is trained that could leak."""
    return AuditError(
        target,
        "it has no convolution and no dense layer",
        "name the file that holds the network's layers",
    )


def choose_loss(graph: Graph, loss: str) -> str:
    """The loss meant by `auto`: logistic for one output per example, cross-entropy otherwise."""
    if loss != "auto":
        return loss
    shape = graph.tensors[graph.outputs[0]].shape if graph.outputs else ()
    return "bce" if shape[1:] in ((), (1,)) else "cross-entropy"


def _notes(graph: Graph) -> tuple[str, ...]:
    notes = list(graph.notes)
    if any(p.trainable_assumed and p.trainable for p in graph.parameters.values()):
        notes.append(
            "the format does not say which parameters are trained: all stored weights are taken "
            "to send their gradient (--frozen PATTERN excludes some)"
        )
    return tuple(notes)


def _confirm(
    target: str,
    graph: Graph,
    path: LeakPath,
    findings: tuple[Finding, ...],
    options: AuditOptions,
    progress: Progress,
    sha256: str | None,
) -> tuple[tuple[Finding, ...], tuple[ImageReport, ...], str | None]:
    """The findings with their confirmations, the pictures, and why nothing could be run."""
    from leakaudit.confirm.confirm import confirm

    if options.confirm is None:
        raise ValueError("confirmation is off")
    to_confirm = list(dict.fromkeys(f.layer for f in findings if f.layer is not None))
    settings = replace(
        options.confirm, loss=choose_loss(graph, options.loss), limits=options.load.limits
    )
    file = target if graph.format == "onnx" and sha256 is not None else None
    result = confirm(graph, path, to_confirm, settings, file, progress)
    told = []
    for finding in findings:
        if finding.layer is not None:
            finding = replace(finding, confirmation=result.layers.get(finding.layer))
        elif path.target is not None and finding.rule in PATH_RULES:
            finding = replace(finding, confirmation=result.model)
        elif finding.rule == STOP_RULE and result.beyond is not None:
            # The path stops, the leak does not: no gate may pass over it.
            worst = Severity.CRITICAL if result.beyond.status.recovered else finding.severity
            finding = replace(finding, confirmation=result.beyond, severity=worst)
        told.append(finding)
    return tuple(told), _save_images(target, result, options, sha256), result.problem


STOP_RULE = "LA012"
PATH_RULES = ("LA004", "LA005", "LA009", "LA010")


def _save_images(
    target: str, result: ConfirmResult, options: AuditOptions, sha256: str | None
) -> tuple[ImageReport, ...]:
    if options.save_images is None or result.original is None:
        return ()
    folder, original = options.save_images, result.original
    from leakaudit.report.images import write_images

    stem = f"{Path(target.replace(':', '-')).stem}-{(sha256 or target)[:8]}"
    found = {stem: result.reconstruction, f"{stem}-partial": result.partial}
    return tuple(
        write_images(folder, name, original.double().numpy(), picture.double().numpy())
        for name, picture in found.items()
        if picture is not None
    )
