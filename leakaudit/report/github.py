"""GitHub workflow commands: findings as annotations of a run.

GitHub shows ten errors, ten warnings and ten notices of a step, so the worst stand first.
"""

from __future__ import annotations

from leakaudit.findings import AuditReport, Finding, ModelReport
from leakaudit.report import prose, wording
from leakaudit.report.escape import plain
from leakaudit.report.interface import RenderOptions
from leakaudit.report.location import file_of
from leakaudit.report.summary import summarise

_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}


def render(report: AuditReport, options: RenderOptions) -> str:
    """Return a command per finding, per target not audited and per thing skipped, and a total."""
    lines = [
        command("error", model, "not audited", prose.error(model))
        for model in report.models
        if model.error is not None
    ]
    found = [(model, finding) for model in report.models for finding in model.findings]
    found.sort(key=lambda pair: -pair[1].severity.rank)
    lines += [_finding(model, finding, options) for model, finding in found]
    lines += [
        command("warning", model, "skipped", prose.skipped(entry))
        for model in report.models
        for entry in model.skipped
    ]
    totals = _data(wording.totals(summarise(report)))
    lines.append(f"::notice title=leakaudit::{totals}")
    return "\n".join(lines) + "\n"


def command(name: str, model: ModelReport, title: str, message: str) -> str:
    """Return one workflow command. `message` may have several lines."""
    properties = f"file={_property(plain(file_of(model)))},title={_property(f'leakaudit: {title}')}"
    return f"::{name} {properties}::{_data(message)}"


def _finding(model: ModelReport, finding: Finding, options: RenderOptions) -> str:
    opening = f"{prose.statement(finding)} ({finding.severity.value})"
    message = prose.told(opening, finding, options)
    title = f"{plain(finding.rule)} {plain(finding.title)}"
    level = _COMMANDS[prose.LEVELS[finding.severity]]
    return command(level, model, title, message)


def _data(text: str) -> str:
    """Escape a message as the runner undoes it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Escape a property's value as the runner undoes it."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
