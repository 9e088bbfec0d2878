"""What the formats for CI say of a finding, put once: sentences, and how bad in three levels.

Every function returns text that is already escaped by `plain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from leakaudit.findings import (
    AuditReport,
    Finding,
    LayerReport,
    ModelReport,
    RuleText,
    Severity,
    Skipped,
)
from leakaudit.report import wording
from leakaudit.report.escape import plain
from leakaudit.report.interface import RenderOptions

# What most formats know: error, warning, note.
LEVELS = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
    Severity.NOTE: "note",
}


def statement(finding: Finding) -> str:
    """Return one paragraph, the layer in its first sentence: "Layer conv1: ..."."""
    subject = "Model" if finding.layer is None else f"Layer {plain(finding.layer)}"
    sentences = [f"{subject}: {plain(finding.message.strip())}"]
    if finding.downgraded_because:
        sentences.append(f"Severity lowered: {plain(finding.downgraded_because.strip())}")
    return " ".join(it if it.endswith((".", "!", "?")) else f"{it}." for it in sentences)


def evidence(finding: Finding, options: RenderOptions) -> str:
    """Return claim and numbers of the confirmation; empty where there is none."""
    if finding.confirmation is None:
        return ""
    claim = wording.evidence_claim(finding.confirmation)
    details = wording.evidence_details(finding.confirmation, options)
    return f"{claim}: {details}" if details else claim


def remedy(finding: Finding) -> str:
    """Return the remedy on one line; empty where there is none."""
    return plain(" ".join(finding.remedy.split()))


def told(opening: str, finding: Finding, options: RenderOptions) -> str:
    """Return `opening`, the evidence and the remedy, a line each, as far as there are any."""
    advice = remedy(finding)
    shown = evidence(finding, options)
    return "\n".join(filter(None, (opening, shown, f"Remedy: {advice}" if advice else "")))


def with_evidence(opening: str, finding: Finding, options: RenderOptions) -> str:
    """Return `opening` and the evidence, if any, as one paragraph."""
    shown = evidence(finding, options)
    return f"{opening} Evidence: {shown}." if shown else opening


def skipped(entry: Skipped) -> str:
    """Return what was not audited, and why: "gru: unsupported operator GRU"."""
    return f"{plain(entry.what)}: {plain(entry.reason.strip())}"


def layer_counts(layer: LayerReport) -> str:
    """Return operator, shapes, counts and verdict of a layer on one line."""
    shapes = f"{wording.shape(layer.input_shape)} -> {wording.shape(layer.output_shape)}"
    parts = [wording.operator(layer.op, layer.parameters), shapes]
    if layer.counts is not None:
        labels = ("|X|", "|A|", "|B|", "rank bound")
        counted = zip(labels, wording.counted(layer.counts), strict=True)
        parts += [f"{label} {number}" for label, number in counted]
        parts.append(f"determined {wording.determined(layer.counts).removeprefix('! ')}")
    parts.append(layer.verdict.value)
    if layer.note:
        parts.append(plain(layer.note.strip()))
    return ", ".join(parts)


def error(model: ModelReport) -> str:
    """Return why a model could not be audited; empty where it was."""
    return plain(model.error.strip()) if model.error is not None else ""


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings by falling severity, otherwise in the order given."""
    return sorted(findings, key=lambda finding: -finding.severity.rank)


def by_rule(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    """Return each rule's findings, worst first, the rule of the worst one first."""
    worst: dict[str, int] = {}
    for finding in findings:
        worst[finding.rule] = max(finding.severity.rank, worst.get(finding.rule, 0))
    ordered = sorted(findings, key=lambda f: (-worst[f.rule], f.rule, -f.severity.rank))
    return [(rule, list(group)) for rule, group in groupby(ordered, key=lambda f: f.rule)]


def rules_of(report: AuditReport) -> tuple[RuleText, ...]:
    """Return the rules applied, and those that only a finding names, with what it says of them."""
    known = {rule.id: rule for rule in report.rules}
    for model in report.models:
        for finding in (*model.findings, *model.known, *(it.finding for it in model.suppressed)):
            known.setdefault(finding.rule, _from_finding(finding))
    return tuple(known.values())


def path_finding(report: AuditReport, model: ModelReport) -> Finding | None:
    """Return the finding that is about the model's leak path."""
    about_path = {rule.id for rule in rules_of(report) if rule.about_path}
    return next((found for found in model.findings if found.rule in about_path), None)


def _from_finding(finding: Finding) -> RuleText:
    return RuleText(
        id=finding.rule,
        slug="",
        title=finding.title,
        severity=finding.severity,
        precision="medium",
        why="",
        remedy=finding.remedy,
        references=(),
        url=finding.url,
    )
