"""Suppression: findings that the configuration says not to count, with its reason."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from leakaudit.config.targets import TargetPattern
from leakaudit.findings import AuditReport, Finding, Ignore, IgnoreUse, ModelReport, Suppressed


def suppress(
    report: AuditReport, ignores: Sequence[Ignore], folder: Path, *, whole: bool
) -> AuditReport:
    """Set the findings that an `Ignore` matches apart, under the reason of the first that does.

    Patterns for targets are seen from `folder`. A `whole` run is over all targets of the
    configuration, so that an `Ignore` for a target that is not among them is unused, and not merely
    not asked for this time.
    """
    matched: Counter[int] = Counter()
    models = []
    for model in report.models:
        kept: list[Finding] = []
        suppressed: list[Suppressed] = []
        for finding in model.findings:
            numbers = [
                number
                for number, ignore in enumerate(ignores)
                if _matches(ignore, folder, model, finding)
            ]
            matched.update(numbers)
            if numbers:
                suppressed.append(Suppressed(finding, ignores[numbers[0]].reason))
            else:
                kept.append(finding)
        models.append(replace(model, findings=tuple(kept), suppressed=tuple(suppressed)))
    applied = {rule.id for rule in report.rules}
    uses = []
    for number, ignore in enumerate(ignores):
        possible = whole or any(
            model.error is None and _is_for(ignore, folder, model) for model in report.models
        )
        unused = possible and ignore.rule in applied and not matched[number]
        uses.append(IgnoreUse(ignore, matched[number], unused))
    return replace(report, models=tuple(models), ignores=tuple(uses))


def _matches(ignore: Ignore, folder: Path, model: ModelReport, finding: Finding) -> bool:
    if finding.rule != ignore.rule or not _is_for(ignore, folder, model):
        return False
    if ignore.layer is None:
        return True
    return finding.layer is not None and fnmatch.fnmatchcase(finding.layer, ignore.layer)


def _is_for(ignore: Ignore, folder: Path, model: ModelReport) -> bool:
    return ignore.target is None or TargetPattern(ignore.target, folder).matches(model.target)


def describe(ignore: Ignore) -> str:
    """What an `Ignore` is for: "LA003 on layer fc* of old.onnx". Not escaped."""
    words = [ignore.rule]
    if ignore.layer is not None:
        words.append(f"on layer {ignore.layer}")
    if ignore.target is not None:
        words.append(f"{'of' if ignore.layer is not None else 'on'} {ignore.target}")
    return " ".join(words)
