"""Markdown, made for the summary of a CI step or a comment on a merge request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from leakaudit.findings import (
    AuditReport,
    Counts,
    Finding,
    LayerReport,
    LeakPathReport,
    ModelReport,
    Severity,
    Verdict,
)
from leakaudit.report import prose, wording
from leakaudit.report.interface import RenderOptions
from leakaudit.report.markdown.text import code, in_html, rich, text
from leakaudit.report.summary import summarise

# Shape and colour both tell the severity, and the word stands beside them.
_MARKS = {
    Severity.CRITICAL: "🟥",
    Severity.HIGH: "🔴",
    Severity.MEDIUM: "🟠",
    Severity.LOW: "🟡",
    Severity.NOTE: "⚪",
}
_BAR = 10  # characters of the bar that shows the determined fraction


def render(report: AuditReport, options: RenderOptions) -> str:
    """Return a table of models, then per model: layers, findings, leak path, what was skipped."""
    blocks = ["# leakaudit", f"**{text(wording.totals(summarise(report)))}**"]
    if report.models:
        blocks.append(_models(report.models))
    for model in report.models:
        blocks += _model(model, options)
    return "\n\n".join(blocks) + "\n"


def _models(models: Sequence[ModelReport]) -> str:
    rows = []
    for model in models:
        if model.error is not None:
            rows.append([code(model.target), "not audited", ""])
            continue
        found = "none"
        if model.findings:
            worst = prose.worst_first(model.findings)[0].severity
            found = f"{_MARKS[worst]} {len(model.findings)}, worst {worst.value}"
        if not model.complete:
            found += ", **incomplete**"
        reach = text(wording.reach(model.leak_path)) if model.leak_path else ""
        rows.append([code(model.target), found, reach])
    return _table(["model", "findings", "leak path"], rows)


def _model(model: ModelReport, options: RenderOptions) -> list[str]:
    blocks = [f"## {code(model.target)}"]
    if model.error is not None:
        return [*blocks, f"**Not audited:** {text(model.error)}"]
    blocks.append(text(wording.facts(model)))
    if model.layers:
        blocks.append(_layers(model.layers))
        if any(layer.verdict is Verdict.UNDERDETERMINED for layer in model.layers):
            blocks.append(text(wording.UNDERDETERMINED_NOTE))
    blocks.append("### Findings")
    blocks += _findings(model.findings, options) or [wording.no_findings(model)]
    if model.leak_path is not None:
        blocks += _leak_path(model.leak_path)
    blocks += _list("### Skipped", (f"{code(e.what)}: {text(e.reason)}" for e in model.skipped))
    blocks += _list("### Notes", map(text, model.notes))
    return blocks


def _layers(layers: Sequence[LayerReport]) -> str:
    header = ["layer", "operator", "input", "output", "&#124;X&#124;", "&#124;A&#124;"]
    header += ["&#124;B&#124;", "rank bound", "determined", "verdict"]
    rows = []
    for layer in layers:
        name, operator = code(layer.name), text(wording.operator(layer.op, layer.parameters))
        shapes = wording.shape(layer.input_shape), wording.shape(layer.output_shape)
        numbers = ["-"] * 5 if layer.counts is None else _numbers(layer.counts)
        rows.append([name, operator, *shapes, *numbers, layer.verdict.value])
    return _table(header, rows, align="llll" + "r" * 4 + "ll")


def _numbers(counts: Counts) -> list[str]:
    fraction = counts.rank_bound * _BAR // counts.unknowns if counts.unknowns else 0
    bar = "█" * fraction + "░" * (_BAR - fraction)
    shown = wording.determined(counts)
    share = f"**{shown[2:]}**" if shown.startswith("! ") else shown
    return [*wording.counted(counts), f"{bar} {share}"]


def _findings(findings: Sequence[Finding], options: RenderOptions) -> list[str]:
    """Each rule's findings, the rule of the worst first; its remedy once where they share it."""
    blocks = []
    for _, group in prose.by_rule(findings):
        blocks.append(f"#### {text(group[0].rule)} {text(group[0].title)}")
        blocks += [_finding(finding, options) for finding in group]
        remedies = list(dict.fromkeys(filter(None, map(prose.remedy, group))))
        blocks += [f"**Remedy:** {rich(remedy)}" for remedy in remedies]
    return blocks


def _finding(finding: Finding, options: RenderOptions) -> str:
    where = "model" if finding.layer is None else in_html(finding.layer)
    mark = f"{_MARKS[finding.severity]} <b>{finding.severity.value}</b>"
    claim = ""
    if finding.confirmation is not None:
        claim = f": {wording.evidence_claim(finding.confirmation)}"
    parts = [f"<details><summary>{mark} {where}{claim}</summary>", text(prose.statement(finding))]
    evidence = prose.evidence(finding, options)
    if evidence:
        parts.append(text(evidence))
    return "\n\n".join([*parts, "</details>"])


def _leak_path(path: LeakPathReport) -> list[str]:
    reach = text(wording.reach(path))
    blocks = ["### Leak path", f"{reach[:1].upper()}{reach[1:]}."]
    blocks += [
        f"- stops at {code(stop.at)} ({wording.stop_kind(stop)}): {text(stop.reason)}"
        for stop in path.stopped
    ]
    if path.steps:
        lines = []
        for number, step in enumerate(path.steps, start=1):
            where = f"{code(step.layer)}: " if step.layer else ""
            lines.append(f"{number}. {where}{text(step.derivation)} ⇒ {code(step.fact)}")
        steps = wording.quantity(len(path.steps), "step")
        blocks += [f"<details><summary>{steps}</summary>", "\n".join(lines), "</details>"]
    return blocks


def _list(title: str, entries: Iterable[str]) -> list[str]:
    lines = [f"- {entry}" for entry in entries]
    return [title, "\n".join(lines)] if lines else []


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    align = align or "l" * len(header)
    rule = ["--:" if side == "r" else "---" for side in align]
    lines = [header, rule, *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
