"""The JSON report: golden file, schema, hostile text, reproducibility."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from jsonschema import Draft202012Validator

from leakaudit.findings import AuditReport, Status, Verdict
from leakaudit.report import RenderOptions, json_report
from leakaudit.report.json_report import as_json, schema


def render(report: AuditReport, **options: object) -> str:
    return json_report.render(report, RenderOptions(**options))  # type: ignore[arg-type]


def errors(text: str) -> list[str]:
    validator = Draft202012Validator(schema())
    return [error.message for error in validator.iter_errors(json.loads(text))]


def test_golden_json_follows_the_schema(
    mixed_report: AuditReport, golden: Callable[[str, str], None]
) -> None:
    text = render(mixed_report)
    golden("report.json", text)
    assert errors(text) == []


def test_the_schema_is_itself_valid_and_closed() -> None:
    loaded = schema()
    Draft202012Validator.check_schema(loaded)
    objects = [part for part in _dicts(loaded) if part.get("type") == "object"]
    assert len(objects) > 10
    for part in objects:
        # A map by name states its values' type; every other object is closed and complete.
        if "properties" in part:
            assert part["additionalProperties"] is False
            assert sorted(part["required"]) == sorted(part["properties"])
        else:
            assert isinstance(part["additionalProperties"], dict)


def test_the_schema_refuses_more_and_less(mixed_report: AuditReport) -> None:
    def broken(change: Callable[[dict[str, object]], object]) -> list[str]:
        document = json.loads(render(mixed_report))
        change(document)
        return errors(json.dumps(document))

    assert broken(lambda d: d.update(extra=1))
    assert broken(lambda d: d["models"][0].update(extra=1))  # type: ignore[index]
    assert broken(lambda d: d["models"][0].pop("findings"))  # type: ignore[index]
    assert broken(lambda d: d.update(schema_version=2))
    assert broken(lambda d: d["models"][0]["layers"][0].update(verdict="safe"))  # type: ignore[index]


def test_the_structure_of_the_contract(mixed_report: AuditReport) -> None:
    document = json.loads(render(mixed_report))
    assert list(document) == [
        "schema_version",
        "tool",
        "models",
        "ignores",
        "baseline",
        "summary",
    ]
    model = document["models"][0]
    contract = [
        "target",
        "format",
        "sha256",
        "inputs",
        "complete",
        "layers",
        "leak_path",
        "findings",
        "skipped",
    ]
    assert [key for key in model if key in contract] == contract
    layer = model["layers"][0]
    assert layer["input_shape"] == [1, 3, 32, 32]
    assert (layer["counts"]["unknowns"], layer["counts"]["gradient_constraints"]) == (3072, 900)
    assert layer["counts"]["determined_fraction"] == 1.0
    assert {"derivation", "tensor", "premises", "counts"} <= set(model["leak_path"]["steps"][0])
    evidence = model["findings"][1]["confirmation"]
    assert (evidence["status"], evidence["scope"]) == ("confirmed", "end to end")
    assert evidence["attempts"][1] == "dense least squares"


def test_the_summary_counts_what_the_models_hold(mixed_report: AuditReport) -> None:
    document = json.loads(render(mixed_report))
    findings = [finding for model in document["models"] for finding in model["findings"]]
    summary = document["summary"]
    assert summary["models"] == len(document["models"]) == 3
    assert summary["layers"] == sum(len(model["layers"]) for model in document["models"]) == 7
    for severity, number in summary["findings"].items():
        assert number == sum(finding["severity"] == severity for finding in findings)
    statuses = [
        finding["confirmation"]["status"] for finding in findings if finding["confirmation"]
    ]
    assert summary["confirmed"] == statuses.count(Status.CONFIRMED) == 1
    assert summary["not_reproduced"] == statuses.count(Status.NOT_REPRODUCED) == 1
    assert (summary["incomplete"], summary["errors"]) == (1, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_json_has_no_number_for_is_null(value: float, lenet_report: AuditReport) -> None:
    report = _with_evidence(lenet_report, mse=value, psnr=value, condition=value)
    model = report.models[0]
    layer = replace(model.layers[0], parameters={"slope": value, "nested": [(value, 1)]})
    report = AuditReport("1", (replace(model, layers=(layer,)),))
    text = render(report)
    evidence = json.loads(text)["models"][0]["findings"][0]["confirmation"]
    assert (evidence["mse"], evidence["psnr"], evidence["condition"]) == (None, None, None)
    layer_json = json.loads(text)["models"][0]["layers"][0]
    assert layer_json["parameters"] == {"nested": [[None, 1]], "slope": None}
    assert errors(text) == []


def test_two_runs_differ_in_seconds_only(lenet_report: AuditReport) -> None:
    slow, fast = (_with_evidence(lenet_report, seconds=taken) for taken in (9.25, 0.125))
    changed = [
        pair
        for pair in zip(render(slow).splitlines(), render(fast).splitlines(), strict=True)
        if pair[0] != pair[1]
    ]
    assert [pair[0].strip() for pair in changed] == ['"seconds": 9.25,']
    assert render(slow, show_seconds=False) == render(fast, show_seconds=False)


def test_parameters_in_any_order_give_the_same_bytes(lenet_report: AuditReport) -> None:
    model = lenet_report.models[0]
    layer = model.layers[0]
    turned = replace(layer, parameters=dict(reversed(layer.parameters.items())))
    assert list(turned.parameters) != list(layer.parameters)
    layers = (turned, *model.layers[1:])
    again = AuditReport(lenet_report.tool_version, (replace(model, layers=layers),))
    assert render(again) == render(lenet_report)


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[31m",
        "two\nlines",
        '"},{"',
        "</script><script>alert(1)</script>",
        "<!--",
        "::error::x",
        "a ##[stop-commands]x ##vso[task.complete]",
        "\u202ertl \u2028",
        "Größe 層 \U0001f600",
        "back\\slash \\u003c",
    ],
)
def test_hostile_names_survive_exactly_and_do_no_harm(
    hostile: str, lenet_report: AuditReport
) -> None:
    model = lenet_report.models[0]
    layers = (replace(model.layers[0], name=hostile, parameters={hostile: hostile}),)
    text = render(AuditReport("1", (replace(model, target=hostile, layers=layers),)))
    assert text.isascii()
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "<" not in text
    assert "##" not in text
    assert not [line for line in text.splitlines() if line.lstrip().startswith("::")]
    loaded = json.loads(text)["models"][0]
    assert loaded["target"] == loaded["layers"][0]["name"] == hostile
    assert loaded["layers"][0]["parameters"] == {hostile: hostile}
    assert errors(text) == []


def test_lone_surrogates_become_text_that_every_parser_takes(lenet_report: AuditReport) -> None:
    model = replace(lenet_report.models[0], target="caf\udce9.onnx")
    target = json.loads(render(AuditReport("1", (model,))))["models"][0]["target"]
    assert target == "caf\\udce9.onnx"
    target.encode("utf-8")


def test_a_layer_without_unknowns_or_counts(lenet_report: AuditReport) -> None:
    model = lenet_report.models[0]
    counts = model.layers[0].counts
    assert counts is not None
    empty = replace(model.layers[0], counts=replace(counts, unknowns=0, rank_bound=0))
    none = replace(model.layers[0], counts=None, verdict=Verdict.UNDETERMINED)
    text = render(AuditReport("1", (replace(model, layers=(empty, none)),)))
    first, second = json.loads(text)["models"][0]["layers"]
    assert first["counts"]["determined_fraction"] is None
    assert second["counts"] is None
    assert errors(text) == []


def test_an_empty_run_is_a_valid_report() -> None:
    assert errors(render(AuditReport("1", ()))) == []


def test_a_parameter_that_is_no_json_value_is_refused(lenet_report: AuditReport) -> None:
    model = lenet_report.models[0]
    layers = (replace(model.layers[0], parameters={"kernel": object()}),)
    with pytest.raises(TypeError, match="object is not a JSON value"):
        as_json(AuditReport("1", (replace(model, layers=layers),)))


def _with_evidence(report: AuditReport, **changes: object) -> AuditReport:
    model = report.models[0]
    finding = model.findings[1]
    assert finding.confirmation is not None
    changed = replace(finding.confirmation, **changes)
    findings = (replace(finding, confirmation=changed),)
    return replace(report, models=(replace(model, findings=findings),))


def _dicts(value: object) -> Iterator[dict[str, object]]:
    if isinstance(value, dict):
        yield value
        for entry in value.values():
            yield from _dicts(entry)
    if isinstance(value, list):
        for entry in value:
            yield from _dicts(entry)
