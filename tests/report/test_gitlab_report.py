"""GitLab's code quality report: the keys it needs, unique fingerprints, text that stays text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from report_samples import HOSTILE, poisoned

from leakaudit.findings import AuditReport, Severity
from leakaudit.report import RenderOptions, gitlab
from leakaudit.report.escape import plain

# What GitLab's documentation lists as required.
SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "severity", "location"],
        "properties": {
            "description": {"type": "string", "minLength": 1},
            "check_name": {"type": "string", "minLength": 1},
            "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "required": ["path", "lines"],
                "properties": {
                    "path": {"type": "string", "pattern": "^(?!\\./)."},
                    "lines": {
                        "type": "object",
                        "required": ["begin"],
                        "properties": {"begin": {"type": "integer", "minimum": 1}},
                    },
                },
            },
        },
    },
}


def text_of(report: AuditReport) -> str:
    return gitlab.render(report, RenderOptions())


def entries_of(report: AuditReport) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(text_of(report))
    Draft202012Validator(SCHEMA).validate(entries)
    return entries


def test_golden(ci_report: AuditReport, golden: Callable[[str, str], None]) -> None:
    entries_of(ci_report)
    golden("report.gitlab.json", text_of(ci_report))


def test_entries(ci_report: AuditReport) -> None:
    entries = entries_of(ci_report)
    assert [(entry["check_name"], entry["severity"]) for entry in entries] == [
        ("LA020", "major"),
        ("LA010", "blocker"),
        ("LA010", "critical"),
        ("LA040", "blocker"),
        ("LA030", "info"),
        ("skipped", "minor"),
        ("not-audited", "blocker"),
    ]
    assert entries[1]["location"] == {"path": "models/lenet_main.onnx", "lines": {"begin": 1}}
    assert "Layer conv1: |X| = 3072" in entries[1]["description"]
    assert "Evidence: confirmed end to end" in entries[1]["description"]
    assert "the file ends in the middle of a tensor" in entries[-1]["description"]


def test_fingerprints_tell_targets_layers_and_repeats_apart(ci_report: AuditReport) -> None:
    first = ci_report.models[0]
    again = replace(first, target="models/copy.onnx")
    doubled = replace(first, target="models/twice.onnx", findings=first.findings * 2)
    entries = entries_of(replace(ci_report, models=(first, again, doubled)))
    assert len(entries) == 16
    assert len({entry["fingerprint"] for entry in entries}) == len(entries)


def test_fingerprints_hang_on_nothing_else(ci_report: AuditReport) -> None:
    """Another evidence, message or tool version is the same finding to GitLab."""

    def fingerprints(report: AuditReport) -> list[str]:
        return [entry["fingerprint"] for entry in entries_of(report)]

    model = ci_report.models[0]
    findings = tuple(
        replace(found, message="other words", confirmation=None, severity=Severity.LOW)
        for found in model.findings
    )
    changed = replace(ci_report, tool_version="9", models=(replace(model, findings=findings),))
    assert fingerprints(changed) == fingerprints(ci_report)[: len(findings)]


def test_an_empty_run_is_an_empty_array() -> None:
    assert text_of(AuditReport("1", ())) == "[]\n"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_are_inert(hostile: str, ci_report: AuditReport) -> None:
    report = poisoned(ci_report, hostile)
    text = text_of(report)
    assert text.isascii()
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "<" not in text
    assert "##[" not in text
    entries = entries_of(report)
    assert len(entries) == len(entries_of(ci_report))
    assert any(plain(f"{hostile} conv4 {hostile}") in e["description"] for e in entries)
    for entry in entries:
        for shown in (entry["description"], entry["check_name"], entry["location"]["path"]):
            assert shown.isprintable()
