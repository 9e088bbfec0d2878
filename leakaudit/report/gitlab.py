"""GitLab's code quality report: a JSON array of findings.

The format has no place for what was not audited, so that stands among the findings, under the check
names `not-audited` and `skipped`: an empty report must mean that nothing was found.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter

from leakaudit.findings import AuditReport, ModelReport, Severity
from leakaudit.report import prose
from leakaudit.report.escape import plain
from leakaudit.report.interface import RenderOptions
from leakaudit.report.json_text import Json, dump
from leakaudit.report.location import file_of

SEVERITIES = {
    Severity.CRITICAL: "blocker",
    Severity.HIGH: "critical",
    Severity.MEDIUM: "major",
    Severity.LOW: "minor",
    Severity.NOTE: "info",
}


def render(report: AuditReport, options: RenderOptions) -> str:
    """Return an entry per finding, per target not audited and per thing skipped."""
    entries: list[Json] = []
    seen: Counter[tuple[str, ...]] = Counter()
    for model in report.models:
        for check, severity, description, identity in _problems(model, options):
            key = (model.target, check, *identity)
            seen[key] += 1
            entries.append(
                {
                    "description": description,
                    "check_name": check,
                    "fingerprint": _fingerprint(*key, str(seen[key])),
                    "severity": severity,
                    "location": {"path": plain(file_of(model)), "lines": {"begin": 1}},
                }
            )
    return dump(entries)


def _problems(
    model: ModelReport, options: RenderOptions
) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Return check name, severity, description, and what tells the entry from others."""
    problems: list[tuple[str, str, str, tuple[str, ...]]] = []
    if model.error is not None:
        problems.append(("not-audited", "blocker", f"Not audited: {prose.error(model)}", ()))
    for finding in model.findings:
        opening = f"{plain(finding.title)}. {prose.statement(finding)}"
        description = prose.with_evidence(opening, finding, options)
        severity = SEVERITIES[finding.severity]
        problems.append((plain(finding.rule), severity, description, (finding.fingerprint,)))
    for entry in model.skipped:
        description = f"Skipped: {prose.skipped(entry)}"
        problems.append(("skipped", "minor", description, (entry.what, entry.reason)))
    return problems


def _fingerprint(*identity: str) -> str:
    # JSON keeps ("a", "bc") and ("ab", "c") apart.
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
