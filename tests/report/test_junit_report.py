"""JUnit XML: parsed, held against a schema, and text that stays text."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xmlschema
from report_samples import HOSTILE, poisoned

from leakaudit.findings import AuditReport, Severity, Skipped
from leakaudit.report import RenderOptions, junit
from leakaudit.report.escape import plain

SCHEMA = Path(__file__).parent / "schemas" / "junit-10.xsd"


@pytest.fixture(scope="module")
def schema() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(SCHEMA)


def text_of(report: AuditReport, **options: Any) -> str:
    return junit.render(report, RenderOptions(**options))


def cases_of(report: AuditReport) -> dict[str, ET.Element]:
    """The test cases by suite and name, as `models/lenet_main.onnx conv1`."""
    root = ET.fromstring(text_of(report))
    return {
        f"{suite.get('name')} {case.get('name')}": case
        for suite in root
        for case in suite.iter("testcase")
    }


def test_golden(
    ci_report: AuditReport, golden: Callable[[str, str], None], schema: xmlschema.XMLSchema
) -> None:
    text = text_of(ci_report)
    golden("report.junit.xml", text)
    assert [error.reason for error in schema.iter_errors(text)] == []


def test_a_case_per_layer_and_one_per_model(ci_report: AuditReport) -> None:
    root = ET.fromstring(text_of(ci_report))
    assert [suite.get("name") for suite in root] == [model.target for model in ci_report.models]
    for suite, model in zip(root, ci_report.models, strict=True):
        names = [case.get("name") for case in suite.iter("testcase")]
        assert names == ["(model)", *(layer.name for layer in model.layers)]
        assert {case.get("classname") for case in suite.iter("testcase")} == {model.target}


def test_the_counts_are_those_of_the_elements(ci_report: AuditReport) -> None:
    root = ET.fromstring(text_of(ci_report))
    for part in (root, *root):
        assert int(part.get("tests", "-1")) == len(list(part.iter("testcase")))
        assert int(part.get("failures", "-1")) == len(list(part.iter("failure")))
        assert int(part.get("errors", "-1")) == len(list(part.iter("error")))
    assert root.get("failures") == "4"
    assert root.get("errors") == "1"


def test_outcomes(ci_report: AuditReport) -> None:
    cases = cases_of(ci_report)

    def outcome(name: str) -> list[str]:
        return [child.tag for child in cases[f"models/{name}"] if child.tag != "system-out"]

    assert outcome("lenet_main.onnx conv1") == ["failure"]
    assert outcome("lenet_main.onnx conv2") == []
    assert outcome("lenet_main.onnx (model)") == ["failure"]
    assert outcome("pooled.pt2 (model)") == []  # its one finding is a note
    assert outcome("pooled.pt2 attention.in_proj") == ["skipped"]
    assert outcome("broken.onnx (model)") == ["error"]
    failure = cases["models/lenet_main.onnx conv1"].find("failure")
    assert failure is not None
    assert failure.get("type") == "critical"
    assert failure.text is not None
    assert "PSNR 262.1 dB" in failure.text
    assert "Remedy: Raise the stride" in failure.text
    note = cases["models/pooled.pt2 (model)"].findtext("system-out")
    assert note is not None
    assert "note LA030: Model: an operator is not understood" in note


def test_several_findings_of_a_layer_stand_in_one_failure(ci_report: AuditReport) -> None:
    model = ci_report.models[0]
    findings = tuple(
        replace(model.findings[0], rule=f"LA{number}", severity=severity)
        for number, severity in enumerate(Severity, start=100)
    )
    report = replace(ci_report, models=(replace(model, findings=findings),))
    case = cases_of(report)["models/lenet_main.onnx conv4"]
    (failure,) = case.findall("failure")
    assert failure.get("type") == "critical"
    assert (failure.get("message") or "").endswith("(and 3 more)")
    text = failure.text or ""
    assert [rule in text for rule in ("LA100", "LA101", "LA102", "LA103", "LA104")] == [
        True,
        True,
        True,
        True,
        False,
    ]
    assert "LA104" in (case.findtext("system-out") or "")


def test_nothing_gets_lost(ci_report: AuditReport) -> None:
    """A finding on a layer that is not listed, and two things skipped under one name."""
    model = ci_report.models[0]
    findings = (replace(model.findings[0], layer="elsewhere"),)
    skipped = (Skipped("confirmation", "no torch"), Skipped("confirmation", "no time"))
    report = replace(ci_report, models=(replace(model, findings=findings, skipped=skipped),))
    root = ET.fromstring(text_of(report))
    assert [(f.text or "").split(":")[1] for f in root.iter("failure")] == [" Layer elsewhere"]
    assert [s.get("message") for s in root.iter("skipped")] == ["no torch", "no time"]


def test_times_can_be_left_out(ci_report: AuditReport) -> None:
    assert cases_of(ci_report)["models/lenet_main.onnx conv1"].get("time") == "0.414"
    text = text_of(ci_report, show_seconds=False)
    assert "time=" not in text
    assert "0.41" not in text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_are_inert(
    hostile: str, ci_report: AuditReport, schema: xmlschema.XMLSchema
) -> None:
    clean = ET.fromstring(text_of(ci_report))
    text = text_of(poisoned(ci_report, hostile))
    dirty = ET.fromstring(text)
    assert [part.tag for part in dirty.iter()] == [part.tag for part in clean.iter()]
    names = [case.get("name") for case in dirty.iter("testcase")]
    assert plain(f"{hostile} conv1 {hostile}") in names
    assert all(character.isprintable() or character == "\n" for character in text)
    assert not [line for line in text.splitlines() if line.lstrip().startswith("::")]
    assert [error.reason for error in schema.iter_errors(text)] == []
