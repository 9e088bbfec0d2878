"""SARIF: the official schema, what GitHub asks for, and text that stays text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from jsonschema import Draft202012Validator
from report_samples import HOSTILE, poisoned

from leakaudit.findings import AuditReport, Severity
from leakaudit.report import RenderOptions, sarif
from leakaudit.report.escape import plain

SCHEMA = Path(__file__).parent / "schemas" / "sarif-2.1.0.json"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def text_of(report: AuditReport, **options: Any) -> str:
    return sarif.render(report, RenderOptions(**options))


def run_of(report: AuditReport) -> dict[str, Any]:
    run: dict[str, Any] = json.loads(text_of(report))["runs"][0]
    return run


def test_golden(
    ci_report: AuditReport, golden: Callable[[str, str], None], validator: Draft202012Validator
) -> None:
    text = text_of(ci_report)
    golden("report.sarif", text)
    assert [error.message for error in validator.iter_errors(json.loads(text))] == []


def test_the_schema_refuses_what_is_wrong(
    ci_report: AuditReport, validator: Draft202012Validator
) -> None:
    document = json.loads(text_of(ci_report))
    document["runs"][0]["results"][0]["level"] = "fatal"
    del document["runs"][0]["tool"]["driver"]["name"]
    assert len(list(validator.iter_errors(document))) == 2


def test_what_github_needs_of_a_rule(ci_report: AuditReport) -> None:
    rules = run_of(ci_report)["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["LA010", "LA020", "LA030", "LA040", "LA050"]
    for rule in rules:
        assert rule["shortDescription"]["text"]
        assert 0 < len(rule["fullDescription"]["text"]) <= 1024
        assert "What to do" in rule["help"]["text"]
        assert "### What to do" in rule["help"]["markdown"]
        assert rule["properties"]["precision"] in ("very-high", "high", "medium", "low")
        assert "security" in rule["properties"]["tags"]
        assert isinstance(rule["properties"]["security-severity"], str)
    # GitHub's bands: over 9.0 critical, 7.0 to 8.9 high, 4.0 to 6.9 medium, 0.1 to 3.9 low.
    scores = {rule["id"]: float(rule["properties"]["security-severity"]) for rule in rules}
    assert scores["LA040"] > 9.0
    assert 7.0 <= scores["LA010"] <= 8.9
    assert 4.0 <= scores["LA020"] <= 6.9
    assert 0.1 <= scores["LA030"] < scores["LA050"] <= 3.9
    levels = {rule["id"]: rule["defaultConfiguration"]["level"] for rule in rules}
    assert levels == {
        "LA010": "error",
        "LA020": "warning",
        "LA030": "note",
        "LA040": "error",
        "LA050": "note",
    }


def test_what_github_needs_of_a_result(ci_report: AuditReport) -> None:
    run = run_of(ci_report)
    findings = [(model, finding) for model in ci_report.models for finding in model.findings]
    assert len(run["results"]) == len(findings) > 4
    for result, (model, finding) in zip(run["results"], findings, strict=True):
        assert result["ruleId"] == finding.rule
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == finding.rule
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == model.target
        region = {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 1}
        assert place["region"] == region
        assert result["partialFingerprints"] == {"leakaudit/v1": finding.fingerprint}
        first_sentence = result["message"]["text"].split(". ")[0]
        logical = result["locations"][0]["logicalLocations"][0]
        if finding.layer is None:
            assert first_sentence.startswith("Model: ")
        else:
            assert first_sentence.startswith(f"Layer {finding.layer}: ")
            assert logical["name"] == finding.layer
            assert logical["fullyQualifiedName"] == f"{model.target}:{finding.layer}"


def test_the_leak_path_is_the_code_flow_of_the_finding_on_it(ci_report: AuditReport) -> None:
    results = run_of(ci_report)["results"]
    flows = {result["ruleId"]: result["codeFlows"] for result in results if "codeFlows" in result}
    assert list(flows) == ["LA040"]
    path = ci_report.models[0].leak_path
    assert path is not None
    locations = flows["LA040"][0]["threadFlows"][0]["locations"]
    assert [entry["executionOrder"] for entry in locations] == list(range(1, len(path.steps) + 1))
    for entry, step in zip(locations, path.steps, strict=True):
        message = entry["location"]["message"]["text"]
        assert step.fact in message
        assert entry["location"]["logicalLocations"][0]["name"] == step.layer
    assert "900 gradient + 3072 weight equations" in locations[-1]["location"]["message"]["text"]


def test_a_path_that_stops_ends_with_the_reason(ci_report: AuditReport) -> None:
    first, second, _ = ci_report.models
    stopped = replace(first, leak_path=second.leak_path)
    results = run_of(replace(ci_report, models=(stopped,)))["results"]
    flow = next(result["codeFlows"][0] for result in results if "codeFlows" in result)
    last = flow["threadFlows"][0]["locations"][-1]["location"]
    assert last["message"]["text"].startswith("stops at pool (not followed): max pooling hides")


def test_what_was_not_audited_is_notified(ci_report: AuditReport) -> None:
    run = run_of(ci_report)
    invocation = run["invocations"][0]
    assert invocation["executionSuccessful"] is False
    told = [
        (entry["descriptor"]["id"], entry["level"], entry["message"]["text"])
        for entry in invocation["toolExecutionNotifications"]
    ]
    assert [entry[:2] for entry in told] == [
        ("remark", "note"),
        ("skipped", "warning"),
        ("not-audited", "error"),
    ]
    assert "com.microsoft::Attention is not understood" in told[1][2]
    assert "the file ends in the middle of a tensor" in told[2][2]
    described = run["tool"]["driver"]["notifications"]
    for entry in invocation["toolExecutionNotifications"]:
        assert described[entry["descriptor"]["index"]]["id"] == entry["descriptor"]["id"]
    only = run_of(replace(ci_report, models=ci_report.models[:1]))
    assert only["invocations"][0]["executionSuccessful"] is True


def test_rules_that_only_a_finding_names_are_described(ci_report: AuditReport) -> None:
    run = run_of(replace(ci_report, rules=()))
    rules = run["tool"]["driver"]["rules"]
    assert {result["ruleId"] for result in run["results"]} == {rule["id"] for rule in rules}
    assert all(rule["shortDescription"]["text"] for rule in rules)


@pytest.mark.parametrize(
    ("target", "model_format", "uri"),
    [
        ("./models//a b.onnx", "onnx", "models/a%20b.onnx"),
        ("models/x/../50%#?.onnx", "onnx", "models/50%25%23%3F.onnx"),
        ("models/Größe.onnx", "onnx", "models/Gr%C3%B6%C3%9Fe.onnx"),
        ("nets/lenet.py:make", "module", "nets/lenet.py"),
        ("package.nets:make", "module", "package.nets%3Amake"),
        ("javascript:alert(1).onnx", "onnx", "javascript%3Aalert%281%29.onnx"),
    ],
)
def test_uris_are_relative_and_escaped(
    target: str, model_format: str, uri: str, lenet_report: AuditReport
) -> None:
    model = replace(lenet_report.models[0], target=target, format=model_format)
    result = run_of(replace(lenet_report, models=(model,)))["results"][0]
    artifact = result["locations"][0]["physicalLocation"]["artifactLocation"]
    assert artifact == {"uri": uri, "uriBaseId": "%SRCROOT%"}


def test_a_file_below_the_working_folder_is_relative_and_another_is_not(
    lenet_report: AuditReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for target, uri in (
        (str(work / "sub" / "m.onnx"), "sub/m.onnx"),
        ("../m.onnx", (tmp_path / "m.onnx").as_uri()),
        (str(tmp_path / "m.onnx"), (tmp_path / "m.onnx").as_uri()),
    ):
        model = replace(lenet_report.models[0], target=target)
        result = run_of(replace(lenet_report, models=(model,)))["results"][0]
        artifact = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert artifact["uri"] == uri
        assert ("uriBaseId" in artifact) is not uri.startswith("file:")


def test_the_severity_of_a_finding_sets_its_level(lenet_report: AuditReport) -> None:
    model = lenet_report.models[0]
    findings = tuple(replace(model.findings[0], severity=severity) for severity in Severity)
    results = run_of(replace(lenet_report, models=(replace(model, findings=findings),)))["results"]
    assert [result["level"] for result in results] == ["error", "error", "warning", "note", "note"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_are_inert(
    hostile: str, ci_report: AuditReport, validator: Draft202012Validator
) -> None:
    text = text_of(poisoned(ci_report, hostile))
    assert text.isascii()
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "<" not in text
    assert "##[" not in text
    document = json.loads(text)
    assert [error.message for error in validator.iter_errors(document)] == []
    run = document["runs"][0]
    layers = [
        place["name"]
        for result in run["results"]
        for place in result["locations"][0]["logicalLocations"]
    ]
    assert plain(f"{hostile} conv4 {hostile}") in layers
    for message in _messages([run["results"], run["invocations"]]):
        assert "](" not in message
        assert not re.search(r"[{}]", message.replace("{{", "").replace("}}", ""))
        assert message.isprintable()
    for result in run["results"]:
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert re.fullmatch(r"(file:///)?[\w.~%/-]+", uri, re.ASCII)
        assert not unquote(uri).startswith("../")


def _messages(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["text"]] if isinstance(value.get("text"), str) else []
        return own + [text for entry in value.values() for text in _messages(entry)]
    if isinstance(value, list):
        return [text for entry in value for text in _messages(entry)]
    return []
