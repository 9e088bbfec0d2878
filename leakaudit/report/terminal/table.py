"""The report for people: tables and sentences for a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import click

from leakaudit.findings import (
    AuditReport,
    Confirmation,
    Finding,
    LayerReport,
    LeakPathReport,
    ModelReport,
    PathStep,
    Severity,
    Status,
    Verdict,
)
from leakaudit.report import prose, wording
from leakaudit.report.escape import not_a_command, plain
from leakaudit.report.interface import RenderOptions
from leakaudit.report.summary import summarise
from leakaudit.report.terminal.layer_table import layer_table

_NARROWEST = 60
_INDENT = " " * 12  # severities stand before it, messages after it
_GLUE = "\u00a0"  # a space at which no line is broken
_GLUED_AT_MOST = 40

_SEVERITY_COLORS = {
    Severity.CRITICAL: "bright_red",
    Severity.HIGH: "red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.NOTE: "blue",
}
_VERDICT_COLORS = {
    Verdict.FLAGGED: "red",
    Verdict.UNDETERMINED: "magenta",
}
_STATUS_COLORS = {
    Status.CONFIRMED: "bright_red",
    Status.BY_SEARCH: "bright_red",
    Status.INCONCLUSIVE: "yellow",
}


def render(report: AuditReport, options: RenderOptions) -> str:
    """Return, per model: heading, layers, leak path, findings, what was skipped; then totals."""
    page = _Page(options)
    lines: list[str] = []
    if options.verbosity > -2:
        for model in report.models:
            lines += [*page.model(model), ""]
    summary = summarise(report)
    lines += page.wrap(_glued(wording.totals(summary)), style={"bold": True})
    return "\n".join(lines) + "\n"


class _Page:
    """Sets each part of a report under one set of options; every method gives finished lines."""

    def __init__(self, options: RenderOptions) -> None:
        self.options = options
        self.width = max(options.width, _NARROWEST)

    def model(self, model: ModelReport) -> list[str]:
        """Return everything about one model; one line where it could not be audited."""
        if model.error is not None:
            line = f"{plain(model.target)}: not audited: {plain(model.error.strip())}"
            return [self.style(not_a_command(line), fg="magenta")]
        blocks = [self.heading(model)]
        if self.options.verbosity >= 0:
            blocks += [self.layers(model.layers), self.leak_path(model.leak_path)]
        blocks.append(self.findings(model))
        blocks.append(self.listing("Skipped", map(prose.skipped, model.skipped)))
        if self.options.verbosity >= 0:
            blocks.append(self.notes(model))
        return [line for block in blocks if block for line in [*block, ""]][:-1]

    def heading(self, model: ModelReport) -> list[str]:
        """Target, underlined, and what it is."""
        target = plain(model.target)
        lines = self.wrap(target, style={"bold": True})
        lines.append("=" * min(len(target), self.width))
        color = {} if model.complete else {"fg": "magenta"}
        lines += self.wrap(wording.facts(model), style=color)
        if self.options.verbosity >= 1 and model.sha256:
            lines += self.wrap(f"sha256 {plain(model.sha256)}")
        return lines

    def layers(self, layers: tuple[LayerReport, ...]) -> list[str]:
        """The table, and below it what a column cannot say."""
        if not layers:
            return ["No layer with weights."]
        lines = layer_table(layers, self.width, self.verdict)
        remarks = []
        for layer in layers:
            if layer.note:
                remarks.append(f"{layer.name}: {layer.note.strip()}")
            if self.options.verbosity >= 1 and layer.counts is not None:
                formula = layer.counts.symbolic
                remarks.append(
                    f"{layer.name}: |X| = {formula.unknowns}; "
                    f"|A| = {formula.gradient_constraints}; "
                    f"|B| = {formula.weight_constraints}; margin = {formula.margin}"
                )
        if remarks:
            lines.append("")
        for remark in remarks:
            lines += self.wrap(plain(remark), rest="  ")
        if any(layer.verdict is Verdict.UNDERDETERMINED for layer in layers):
            lines += ["", *self.wrap(wording.UNDERDETERMINED_NOTE, style={"dim": True})]
        return lines

    def leak_path(self, path: LeakPathReport | None) -> list[str]:
        """How far the equations carry, step by step, and where they stop."""
        if path is None:
            return []
        lines = self.wrap(f"Leak path: {wording.reach(path)}", rest="  ")
        lines[0] = lines[0].replace("Leak path", self.style("Leak path", bold=True), 1)
        digits = len(str(len(path.steps)))
        for number, step in enumerate(path.steps, start=1):
            lines += self.step(step, f"  {number:>{digits}}. ")
        for stop in path.stopped:
            text = wording.stop(stop)
            lines += self.wrap(text, first="  ", rest="    ", style={"fg": "magenta"})
        return lines

    def step(self, step: PathStep, first: str) -> list[str]:
        """One step: the sentence, what follows from it, the equations."""
        text = f"{plain(step.layer)}: " if step.layer else ""
        text += plain(step.derivation.strip())
        conclusion = f"=> {plain(step.fact)}"
        indent = " " * len(first)
        unsaid = wording.equations(_unsaid(step))
        if unsaid:
            lines = self.wrap(text, first=first, rest=indent)
            text = _glued(f"{conclusion}; {unsaid}")
            lines += self.wrap(text, first=indent, rest=indent + "   ")
        else:
            lines = self.wrap(f"{text} {_glued(conclusion)}", first=first, rest=indent)
        if self.options.verbosity >= 1 and step.premises:
            premises = "from " + ", ".join(map(plain, step.premises))
            lines += self.wrap(premises, first=indent, rest=indent + "  ", style={"dim": True})
        return lines

    def findings(self, model: ModelReport) -> list[str]:
        """All findings, those of one rule together, the worst rule first."""
        findings = model.findings
        if not findings:
            return self.wrap(wording.no_findings(model))
        lines = [self.style("Findings", bold=True)]
        for _, group in prose.by_rule(findings):
            lines += ["", *self.rule(group)]
        statuses = {found.confirmation.status for found in findings if found.confirmation}
        if Status.NOT_REPRODUCED in statuses and self.options.verbosity >= 0:
            lines += ["", *self.wrap(wording.NOT_REPRODUCED_NOTE, style={"dim": True})]
        return lines

    def rule(self, findings: Sequence[Finding]) -> list[str]:
        """The findings of one rule; a remedy that several share stands once, below them."""
        rule, title = plain(findings[0].rule), plain(findings[0].title)
        lines = self.wrap(f"{rule}  {title}", rest="  ", style={"bold": True})
        by_remedy: dict[str, list[Finding]] = {}
        for finding in findings:
            by_remedy.setdefault(" ".join(finding.remedy.split()), []).append(finding)
        for remedy, group in by_remedy.items():
            for finding in group:
                lines += self.finding(finding)
            if remedy and self.options.verbosity >= 0:
                lines += self.labelled("remedy", plain(remedy), {"fg": "green"})
        if findings[0].url and self.options.verbosity >= 0:
            lines += self.labelled("see", plain(findings[0].url), {"dim": True})
        return lines

    def finding(self, finding: Finding) -> list[str]:
        """Severity, layer and message, and below them the evidence."""
        where = "model" if finding.layer is None else plain(finding.layer)
        style: dict[str, str | bool] = {"fg": _SEVERITY_COLORS[finding.severity], "bold": True}
        message = f"{where}: {plain(finding.message.strip())}"
        lines = self.labelled(finding.severity.value, message, style)
        if finding.downgraded_because:
            text = f"severity lowered: {plain(finding.downgraded_because.strip())}"
            lines += self.wrap(text, first=_INDENT, rest=_INDENT)
        if finding.confirmation is not None:
            lines += self.evidence(finding.confirmation)
        return lines

    def evidence(self, given: Confirmation) -> list[str]:
        """The claim of the confirmation with its numbers, and under -v everything tried."""
        claim = wording.evidence_claim(given)
        details = wording.evidence_details(given, self.options)
        text = f"{claim}: {_glued(details)}" if details else claim
        lines = self.wrap(text, first=_INDENT, rest=_INDENT)
        if lines[0].startswith(_INDENT + claim) and given.status in _STATUS_COLORS:
            colored = self.style(claim, fg=_STATUS_COLORS[given.status])
            lines[0] = _INDENT + colored + lines[0][len(_INDENT + claim) :]
        if self.options.verbosity >= 1:
            predicted = wording.spectrum(given)
            if predicted:
                lines += self.wrap(predicted, first=_INDENT, rest=_INDENT, style={"dim": True})
            for attempt in given.attempts:
                text = f"tried: {plain(attempt.strip())}"
                lines += self.wrap(text, first=_INDENT, rest=_INDENT + "  ", style={"dim": True})
        return lines

    def labelled(self, label: str, text: str, style: Mapping[str, str | bool]) -> list[str]:
        """A coloured label in the column of severities, and a paragraph beside it."""
        lines = self.wrap(text, first=_INDENT, rest=_INDENT)
        shown = self.style(label, **style)
        return [f"  {shown}{lines[0][2 + len(label) :]}", *lines[1:]]

    def notes(self, model: ModelReport) -> list[str]:
        """Notes and the pictures written."""
        pictures = (
            f"{what}: {plain(getattr(image, what))}"
            for image in model.images
            for what in ("original", "reconstruction", "difference")
        )
        notes = self.listing("Notes", (plain(note.strip()) for note in model.notes))
        shown = self.listing("Pictures", pictures)
        return [*notes, *([""] if notes and shown else []), *shown]

    def listing(self, title: str, entries: Iterable[str]) -> list[str]:
        """A title and one entry a paragraph; nothing where there are no entries."""
        lines = [line for entry in entries for line in self.wrap(entry, first="  ", rest="    ")]
        return [self.style(title, bold=True), *lines] if lines else []

    def verdict(self, text: str, verdict: Verdict) -> str:
        """Colour a cell of the table by its layer's verdict."""
        color = _VERDICT_COLORS.get(verdict)
        return self.style(text, fg=color) if color else text

    def wrap(
        self,
        text: str,
        *,
        first: str = "",
        rest: str = "",
        style: Mapping[str, str | bool] | None = None,
    ) -> list[str]:
        """Return `text` (escaped) in lines that fit the width, coloured after wrapping."""
        wrapped = textwrap.wrap(
            text,
            self.width,
            initial_indent=first,
            subsequent_indent=rest,
            break_on_hyphens=False,
        )
        lines = (not_a_command(line).replace(_GLUE, " ") for line in wrapped)
        return [self.style(line, **(style or {})) for line in lines]

    def style(self, text: str, **how: str | bool) -> str:
        """Return `text` with ANSI codes where colour is on."""
        return click.style(text, **how) if self.options.color and how else text  # type: ignore[arg-type]


def _glued(text: str) -> str:
    """Return `text` so that lines break after its commas, not between a number and its unit."""
    pieces = re.split(r"(?<=[,;:]) ", text)
    return " ".join(
        piece.replace(" ", _GLUE) if len(piece) <= _GLUED_AT_MOST else piece for piece in pieces
    )


def _unsaid(step: PathStep) -> dict[str, int]:
    """Return those of the step's counts that its sentence does not state already."""
    stated = set(re.findall(r"\d+", step.derivation))
    return {key: number for key, number in step.counts.items() if str(number) not in stated}
