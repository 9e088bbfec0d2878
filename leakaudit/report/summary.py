"""The totals over all models, the same in every format."""

from __future__ import annotations

from dataclasses import dataclass

from leakaudit.findings import AuditReport, Severity, Status


@dataclass(frozen=True, slots=True)
class Summary:
    """Totals. `incomplete` models were audited in part, `errors` not at all.

    `confirmed` and `not_reproduced` count findings; `findings` holds every severity, worst first.
    `suppressed` and `known` findings are in none of these.
    """

    models: int
    layers: int
    findings: dict[Severity, int]
    confirmed: int
    not_reproduced: int
    incomplete: int
    errors: int
    suppressed: int = 0
    known: int = 0


def summarise(report: AuditReport) -> Summary:
    """Count what the report holds."""
    models = report.models
    findings = [finding for model in models for finding in model.findings]
    statuses = [finding.confirmation.status for finding in findings if finding.confirmation]
    return Summary(
        models=len(models),
        layers=sum(len(model.layers) for model in models),
        findings={
            severity: sum(finding.severity is severity for finding in findings)
            for severity in Severity
        },
        confirmed=sum(status.recovered for status in statuses),
        not_reproduced=statuses.count(Status.NOT_REPRODUCED),
        incomplete=sum(not model.complete and model.error is None for model in models),
        errors=sum(model.error is not None for model in models),
        suppressed=sum(len(model.suppressed) for model in models),
        known=sum(len(model.known) for model in models),
    )
