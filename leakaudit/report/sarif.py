"""SARIF 2.1.0, with what GitHub code scanning asks of it.

Names from the model stand in messages and logical locations as `plain` shows them. A message of
SARIF is not quite plain text: `[text](target)` in it is a link and `{0}` a placeholder; neither can
come from a name.
"""

from __future__ import annotations

import re

from leakaudit.findings import (
    AuditReport,
    Finding,
    LeakPathReport,
    ModelReport,
    PathStep,
    RuleText,
    Severity,
)
from leakaudit.report import prose, wording
from leakaudit.report.escape import plain
from leakaudit.report.interface import RenderOptions
from leakaudit.report.json_text import Json, dump
from leakaudit.report.location import uri_of
from leakaudit.report.markdown.text import rich

SCHEMA_URI = "https://json.schemastore.org/sarif-2.1.0.json"
FINGERPRINT = "leakaudit/v1"
# GitHub: above 9 critical, from 7 high, from 4 medium, below low.
SECURITY_SEVERITY = {
    Severity.CRITICAL: "9.5",
    Severity.HIGH: "8.0",
    Severity.MEDIUM: "5.5",
    Severity.LOW: "3.0",
    Severity.NOTE: "1.0",
}
_TAGS: list[Json] = ["security", "privacy", "gradient-leakage"]
# A model file is binary; GitHub shows an alert only at a region, so it is the file's first place.
_REGION: dict[str, Json] = {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 1}
_NOTIFICATIONS = {
    "not-audited": ("error", "A target could not be audited."),
    "skipped": ("warning", "Something was left out of the audit."),
    "remark": ("note", "The audit rests on an assumption."),
}
_SHORT_AT_MOST = 1024  # GitHub's limit for the short and full descriptions


def render(report: AuditReport, options: RenderOptions) -> str:
    """Return one run over all targets."""
    rules = prose.rules_of(report)
    index = {rule.id: number for number, rule in enumerate(rules)}
    about_path = {rule.id for rule in rules if rule.about_path}
    results: list[Json] = []
    for model in report.models:
        for finding, state in _with_state(report, model):
            result = _result(model, finding, index[finding.rule], options) | state
            if finding.rule in about_path and model.leak_path and model.leak_path.steps:
                result["codeFlows"] = [_code_flow(model, model.leak_path)]
            results.append(result)
    return dump(
        {
            "$schema": SCHEMA_URI,
            "version": "2.1.0",
            "runs": [
                {
                    "tool": {"driver": _driver(report, rules)},
                    "invocations": [_invocation(report)],
                    "columnKind": "utf16CodeUnits",
                    "originalUriBaseIds": {
                        "%SRCROOT%": {"description": {"text": "The folder of the run."}}
                    },
                    "results": results,
                }
            ],
        }
    )


def _with_state(report: AuditReport, model: ModelReport) -> list[tuple[Finding, dict[str, Json]]]:
    """The findings, also those that do not count, with what SARIF says of each state.

    SARIF is where a finding's history is kept, so here they stay: leaving them out would close
    alerts that are open.
    """
    compared = report.baseline is not None
    new: dict[str, Json] = {"baselineState": "new"} if compared else {}
    known: dict[str, Json] = {"baselineState": "unchanged"}
    found = [(finding, new) for finding in model.findings]
    found += [(finding, known) for finding in model.known]
    for it in model.suppressed:
        # A suppression stands above the baseline: it was not compared.
        state = dict(known) if compared else {}
        state["suppressions"] = [
            {"kind": "external", "status": "accepted", "justification": plain(it.reason.strip())}
        ]
        found.append((it.finding, state))
    return found


def _driver(report: AuditReport, rules: tuple[RuleText, ...]) -> dict[str, Json]:
    return {
        "name": "leakaudit",
        "version": plain(report.tool_version),
        "shortDescription": {"text": "Audits neural-network architectures for gradient leakage."},
        "rules": [_rule(rule) for rule in rules],
        "notifications": [
            {
                "id": name,
                "name": _pascal(name),
                "shortDescription": {"text": text},
                "defaultConfiguration": {"level": level},
            }
            for name, (level, text) in _NOTIFICATIONS.items()
        ],
    }


def _rule(rule: RuleText) -> dict[str, Json]:
    title, level = plain(rule.title), prose.LEVELS[rule.severity]
    why = [plain(paragraph) for paragraph in rule.why.split("\n\n") if paragraph.strip()]
    remedy = plain(" ".join(rule.remedy.split()))
    references = [plain(reference) for reference in rule.references]
    text = why or [title]
    marked = [*map(rich, text)]
    if remedy:
        text = [*text, f"What to do: {remedy}"]
        marked += ["### What to do", rich(remedy)]
    if references:
        text = [*text, "References: " + "; ".join(references)]
        marked += ["### References", "\n".join(f"- {rich(entry)}" for entry in references)]
    described: dict[str, Json] = {
        "id": plain(rule.id),
        "name": _pascal(plain(rule.slug)) or plain(rule.id),
        "shortDescription": {"text": _cut(title)},
        "fullDescription": {"text": _cut(why[0] if why else title)},
        "help": {"text": "\n\n".join(text), "markdown": "\n\n".join(marked)},
        "defaultConfiguration": {"level": level},
        "properties": {
            "precision": rule.precision,
            "problem.severity": "recommendation" if level == "note" else level,
            "security-severity": SECURITY_SEVERITY[rule.severity],
            "tags": _TAGS,
        },
    }
    if re.fullmatch(r"https://[\w.~/%?#=&+-]+", rule.url, re.ASCII):
        described["helpUri"] = rule.url
    return described


def _pascal(slug: str) -> str:
    return "".join(word.capitalize() for word in slug.split("-"))


def _result(
    model: ModelReport, finding: Finding, rule_index: int, options: RenderOptions
) -> dict[str, Json]:
    statement = prose.with_evidence(prose.statement(finding), finding, options)
    properties: dict[str, Json] = {"severity": finding.severity.value}
    if finding.confirmation is not None:
        properties["evidence"] = finding.confirmation.status.value
        properties["scope"] = finding.confirmation.scope.value
    return {
        "ruleId": plain(finding.rule),
        "ruleIndex": rule_index,
        "level": prose.LEVELS[finding.severity],
        "message": _message(statement),
        "locations": [_location(model, finding.layer)],
        "partialFingerprints": {FINGERPRINT: plain(finding.fingerprint)},
        "properties": properties,
    }


def _location(model: ModelReport, layer: str | None) -> dict[str, Json]:
    uri, relative = uri_of(model)
    artifact: dict[str, Json] = {"uri": uri}
    if relative:
        artifact["uriBaseId"] = "%SRCROOT%"
    target = plain(model.target)
    logical: dict[str, Json] = {"name": target, "kind": "module"}
    if layer is not None:
        # A layer of a network is what an object is in a program; SARIF has no closer word.
        name = plain(layer)
        logical = {"name": name, "fullyQualifiedName": f"{target}:{name}", "kind": "object"}
    return {
        "physicalLocation": {"artifactLocation": artifact, "region": _REGION},
        "logicalLocations": [logical],
    }


def _code_flow(model: ModelReport, path: LeakPathReport) -> dict[str, Json]:
    stations = [(step.layer or None, _step(step)) for step in path.steps]
    stations += [(stop.at, wording.stop(stop)) for stop in path.stopped]
    locations: list[Json] = [
        {
            "location": {**_location(model, layer), "message": _message(text)},
            "executionOrder": number,
        }
        for number, (layer, text) in enumerate(stations, start=1)
    ]
    return {
        "message": _message(wording.reach(path)),
        "threadFlows": [{"locations": locations}],
    }


def _step(step: PathStep) -> str:
    where = f"{plain(step.layer)}: " if step.layer else ""
    equations = wording.equations(step.counts)
    more = f"; {equations}" if equations else ""
    return f"{where}{plain(step.derivation.strip())} => {plain(step.fact)}{more}"


def _invocation(report: AuditReport) -> dict[str, Json]:
    notifications: list[Json] = []
    for model in report.models:
        texts = [("not-audited", f"Not audited: {prose.error(model)}")] if model.error else []
        texts += [("skipped", f"Skipped: {prose.skipped(entry)}") for entry in model.skipped]
        texts += [("remark", plain(note.strip())) for note in model.notes]
        notifications += [_notification(model, kind, text) for kind, text in texts]
    return {
        "executionSuccessful": not any(model.error for model in report.models),
        "toolExecutionNotifications": notifications,
    }


def _notification(model: ModelReport, kind: str, text: str) -> dict[str, Json]:
    return {
        "descriptor": {"id": kind, "index": list(_NOTIFICATIONS).index(kind)},
        "level": _NOTIFICATIONS[kind][0],
        "message": _message(text),
        "locations": [_location(model, None)],
    }


def _message(text: str) -> dict[str, Json]:
    """Return a message of plain text without links and placeholders."""
    return {"text": text.replace("{", "{{").replace("}", "}}").replace("](", "] (")}


def _cut(text: str) -> str:
    return text if len(text) <= _SHORT_AT_MOST else f"{text[: _SHORT_AT_MOST - 3]}..."
