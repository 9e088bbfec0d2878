"""The baseline: findings known on a day, so that a gate fails on new ones only.

A finding is known by its target's path, as seen from the baseline file, and its fingerprint, which
training does not change (`audit_facts` says what it is made of). What has no known fingerprint is
new, with two exceptions, both per layer (or for the model as a whole):

- Changing a layer changes the fingerprints of all its findings at once. That is one thing to look
  at, not one for each rule that the layer had met all along: of those, the most severe is new,
  unless a rule that the layer did not meet before is new anyway and as severe.
- A rule that the layer did not meet before, while one that was known there and is more severe is
  no longer met (or lowered by what it found), is what is left of that one: less leaks than before.

So a gate fails on what is worse or changed, a widened layer is one finding, and what its new width
does to the layer behind it is one only where it makes that layer worse.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from leakaudit.config.targets import name_from
from leakaudit.errors import UsageError
from leakaudit.findings import (
    AuditReport,
    BaselineEntry,
    BaselineUse,
    Finding,
    ModelReport,
    Severity,
)

VERSION = 1
MAX_BYTES = 64 * 1024 * 1024
_KEYS = ("target", "rule", "layer", "severity", "fingerprint")


def entries_of(report: AuditReport, folder: Path) -> tuple[BaselineEntry, ...]:
    """The findings of an audit as a baseline in `folder` holds them, in a fixed order."""
    entries = {
        BaselineEntry(
            name_from(folder, model.target), it.rule, it.layer, it.severity, it.fingerprint
        )
        for model in report.models
        for it in model.findings
    }
    return tuple(sorted(entries, key=_order))


def as_text(entries: Iterable[BaselineEntry]) -> str:
    """The baseline file: same findings, same bytes, no weights, dates or versions of the tool."""
    document = {
        "leakaudit_baseline": VERSION,
        "findings": [asdict(entry) for entry in sorted(entries, key=_order)],
    }
    return json.dumps(document, indent=2) + "\n"


def read(path: Path) -> tuple[BaselineEntry, ...]:
    """Read a baseline file.

    Raises:
        UsageError: It cannot be read, or is no baseline of this version.
    """
    remedy = "write it with `leakaudit baseline`"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"baseline {path}: cannot be read ({error.strerror}); {remedy}") from error
    if len(raw) > MAX_BYTES:
        raise UsageError(f"baseline {path}: longer than {MAX_BYTES} bytes; {remedy}")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"baseline {path}: not valid JSON ({error}); {remedy}") from error
    if not isinstance(document, dict) or "leakaudit_baseline" not in document:
        raise UsageError(f"baseline {path}: this is no baseline; {remedy}")
    if document["leakaudit_baseline"] != VERSION:
        raise UsageError(
            f"baseline {path}: version {document['leakaudit_baseline']!r} is not {VERSION}; write "
            "it anew with `leakaudit baseline --update`"
        )
    findings = document.get("findings")
    if not isinstance(findings, list) or not all(map(_is_entry, findings)):
        raise UsageError(
            f"baseline {path}: each of its findings needs {', '.join(_KEYS)}; {remedy}"
        )
    return tuple(
        BaselineEntry(
            each["target"],
            each["rule"],
            each["layer"],
            Severity(each["severity"]),
            each["fingerprint"],
        )
        for each in findings
    )


def compare(
    report: AuditReport, entries: Sequence[BaselineEntry], folder: Path, file: str
) -> AuditReport:
    """Set the known findings apart, and name those of the baseline that are gone.

    The report has its suppression done. The baseline lies in `folder`, the user calls it `file`.
    """
    by_target: dict[str, list[BaselineEntry]] = {}
    for entry in entries:
        by_target.setdefault(entry.target, []).append(entry)
    models = []
    present: set[tuple[str, str, str | None]] = set()
    audited: set[str] = set()
    for model in report.models:
        name = name_from(folder, model.target)
        if model.error is None:
            audited.add(name)
        everything = (*model.findings, *(it.finding for it in model.suppressed))
        present |= {(name, finding.rule, finding.layer) for finding in everything}
        models.append(_compared(model, by_target.get(name, []), everything))
    applied = {rule.id for rule in report.rules}
    fixed = tuple(
        entry
        for entry in sorted(set(entries), key=_order)
        if entry.target in audited
        and entry.rule in applied
        and (entry.target, entry.rule, entry.layer) not in present
    )
    return replace(report, models=tuple(models), baseline=BaselineUse(file, fixed))


def _compared(
    model: ModelReport, entries: Sequence[BaselineEntry], everything: Sequence[Finding]
) -> ModelReport:
    """The model with its known findings apart. `everything` it has, suppressed ones too."""
    prints = {entry.fingerprint for entry in entries}
    known_for = {(entry.rule, entry.layer) for entry in entries}
    met = {(it.rule, it.layer) for it in everything if not it.downgraded_because}
    gone = [entry for entry in entries if (entry.rule, entry.layer) not in met]
    unknown = [finding for finding in model.findings if finding.fingerprint not in prints]
    new: list[Finding] = []
    notes: list[str] = []
    by_layer = groupby(sorted(unknown, key=_layer_order), key=lambda finding: finding.layer)
    for layer, group in by_layer:
        fresh: list[Finding] = []
        changed: list[Finding] = []
        for finding in group:
            (changed if (finding.rule, layer) in known_for else fresh).append(finding)
        where = "the model" if layer is None else f"layer {layer}"
        for finding in fresh:
            worse = [
                entry
                for entry in gone
                if entry.layer == layer and entry.severity.rank > finding.severity.rank
            ]
            if worse:
                rules = ", ".join(sorted({entry.rule for entry in worse}))
                notes.append(f"{finding.rule} on {where} is what is left of {rules}: not new")
            else:
                new.append(finding)
        if changed:
            worst = min(changed, key=lambda finding: (-finding.severity.rank, finding.rule))
            if not any(f in new and f.severity.at_least(worst.severity) for f in fresh):
                new.append(worst)
            rules = ", ".join(sorted(finding.rule for finding in changed))
            notes.append(
                f"{where} has changed since the baseline, where it is known for {rules}: this "
                "counts as one new finding"
            )
    return replace(
        model,
        findings=tuple(finding for finding in model.findings if finding in new),
        known=tuple(finding for finding in model.findings if finding not in new),
        notes=(*model.notes, *notes),
    )


def _layer_order(finding: Finding) -> tuple[bool, str]:
    return finding.layer is None, finding.layer or ""


def _order(entry: BaselineEntry) -> tuple[str, bool, str, str, str]:
    layer = entry.layer
    return entry.target, layer is None, layer or "", entry.rule, entry.fingerprint


def _is_entry(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(key), str) for key in ("target", "rule", "fingerprint"))
        and ("layer" in value and isinstance(value["layer"], str | None))
        and value.get("severity") in list(Severity)
    )
