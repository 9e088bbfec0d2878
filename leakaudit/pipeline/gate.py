"""The gate: with which exit code a run ends, and why an audit is incomplete.

Two things decide whether a finding fails the gate: how severe it is, and what shows it. Counting
shows every finding; some are confirmed, since their reconstruction ran and succeeded. A finding
that was not reproduced is not refuted: counting shows it still.
"""

from __future__ import annotations

from enum import StrEnum

from leakaudit.findings import AuditReport, BaselineEntry, Finding, ModelReport, Severity, Status
from leakaudit.pipeline.suppress import describe

_SHOWN = 5  # entries that one line names


class Evidence(StrEnum):
    """What a finding needs to fail a gate."""

    FLAGGED = "flagged"  # the counts: every finding has them
    CONFIRMED = "confirmed"  # a reconstruction that ran and came back


def exit_code(report: AuditReport, fail_on: Severity, evidence: Evidence = Evidence.FLAGGED) -> int:
    """0 nothing that counts, 1 findings, 3 nothing audited or something not audited.

    What counts is a finding at or above `fail_on` with this evidence; suppressed and known ones
    never do. An incomplete audit weighs more than findings: a gate fails on both, and only 3 says
    that the list of findings may be too short. Where a confirmation is asked for and one that
    would decide could not run, that is an incomplete audit too.
    """
    if not report.models or any(incomplete(model, fail_on, evidence) for model in report.models):
        return 3
    found = (finding for model in report.models for finding in model.findings)
    return 1 if any(_counts(finding, fail_on, evidence) for finding in found) else 0


def incomplete(
    model: ModelReport, fail_on: Severity = Severity.NOTE, evidence: Evidence = Evidence.FLAGGED
) -> str | None:
    """One line on why an audit is incomplete and what to do; None where it is complete."""
    if model.error:
        return model.error
    if not model.complete:
        kinds = ", ".join(dict.fromkeys(skipped.reason for skipped in model.skipped))
        return (
            f"{model.target}: the audit is incomplete ({kinds}); export the model with standard "
            "operators, or judge these by hand (`leakaudit explain LA006`)"
        )
    if evidence is Evidence.CONFIRMED:
        return _untested(model, fail_on)
    return None


def outdated(report: AuditReport) -> list[str]:
    """A line for each `Ignore` that nothing needs, and one on baseline entries that are gone."""
    lines = [
        f"warning: the configuration ignores {describe(use.ignore)}, and there is no such finding "
        f"(reason given: {use.ignore.reason}); take it out"
        for use in report.ignores
        if use.unused
    ]
    baseline = report.baseline
    if baseline is not None and baseline.fixed:
        shown = [_entry(entry) for entry in baseline.fixed[:_SHOWN]]
        if len(baseline.fixed) > _SHOWN:
            shown.append(f"{len(baseline.fixed) - _SHOWN} more")
        lines.append(
            f"note: fixed since the baseline {baseline.file}: {', '.join(shown)}; take them out "
            "with `leakaudit baseline --update`"
        )
    return lines


def _entry(entry: BaselineEntry) -> str:
    where = "the model" if entry.layer is None else f"layer {entry.layer}"
    return f"{entry.rule} on {where} of {entry.target}"


def _counts(finding: Finding, fail_on: Severity, evidence: Evidence) -> bool:
    if not finding.severity.at_least(fail_on):
        return False
    given = finding.confirmation
    return evidence is Evidence.FLAGGED or (given is not None and given.status.recovered)


def _untested(model: ModelReport, fail_on: Severity) -> str | None:
    """Why a finding that would count if confirmed was never put to the test."""
    for finding in model.findings:
        given = finding.confirmation
        if finding.severity.at_least(fail_on) and given and given.status is Status.NOT_RUN:
            where = finding.layer or "the model"
            return (
                f"{model.target}: {finding.rule} on {where} could not be put to the test "
                f"({given.reason}), so that --fail-on-evidence confirmed cannot judge it; use "
                "--fail-on-evidence flagged, or raise --time-budget if time ran out"
            )
    return None
