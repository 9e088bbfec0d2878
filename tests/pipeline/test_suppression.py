"""Suppressions: what is accepted with a reason does not count, and is not forgotten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft7Validator, Draft202012Validator
from places import ROOT, SAMPLES

from leakaudit.cli.main import main
from leakaudit.report import REPORTERS
from leakaudit.report.json_report import schema

LENET = "models/lenet_main.onnx"
CNN6_D = "models/cnn6_d.onnx"
REASON = 'retired in March, "public" data only'


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def check(*arguments: str) -> tuple[int, dict]:
    result = run("check", *arguments, "--no-confirm", "--format", "json")
    document = json.loads(result.stdout)
    assert list(Draft202012Validator(schema()).iter_errors(document)) == []
    return result.exit_code, document


def found(document: dict, kind: str = "findings") -> set[tuple[str, str, str | None]]:
    entries = [(m["target"], f) for m in document["models"] for f in m[kind]]
    plain = [(target, f.get("finding", f)) for target, f in entries]
    return {(target, f["rule"], f["layer"]) for target, f in plain}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models").mkdir()
    for name in ("lenet_main", "cnn6_d"):
        shutil.copy(SAMPLES / f"{name}.onnx", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ignore(project: Path, *entries: dict[str, str]) -> None:
    text = ""
    for entry in entries:
        text += "[[ignore]]\n"
        text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in entry.items())
    (project / "leakaudit.toml").write_text(text, encoding="utf-8")


def test_a_suppressed_finding_does_not_count_and_keeps_its_reason(project: Path) -> None:
    only = (LENET, "--select", "LA003")
    assert check(*only)[0] == 1
    ignore(project, {"rule": "LA003", "reason": REASON})
    code, document = check(*only)
    assert code == 0
    (suppressed,) = document["models"][0]["suppressed"]
    assert suppressed["reason"] == REASON
    assert suppressed["finding"]["layer"] == "fc1"
    assert document["models"][0]["findings"] == []
    assert document["summary"]["suppressed"] == 1
    assert sum(document["summary"]["findings"].values()) == 0
    assert document["ignores"] == [
        {
            "rule": "LA003",
            "target": None,
            "layer": None,
            "reason": REASON,
            "matched": 1,
            "unused": False,
        }
    ]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"rule": "LA002"}, {(LENET, "conv2"), (LENET, "conv3"), (LENET, "conv4")}),
        ({"rule": "LA002", "layer": "conv[23]"}, {(LENET, "conv2"), (LENET, "conv3")}),
        ({"rule": "LA002", "layer": "*4", "target": "lenet*"}, {(LENET, "conv4")}),
        (
            {"rule": "LA002", "target": "models/lenet_main.onnx", "layer": "conv2"},
            {(LENET, "conv2")},
        ),
        ({"rule": "LA002", "target": "cnn6*"}, set()),
        ({"rule": "LA004"}, {(LENET, None)}),
        ({"rule": "LA004", "layer": "*"}, set()),  # the finding is on the model
        ({"rule": "la004"}, {(LENET, None)}),
    ],
)
def test_by_rule_target_and_layer(
    project: Path, entry: dict[str, str], expected: set[tuple[str, str | None]]
) -> None:
    every = found(check(LENET)[1])
    ignore(project, {**entry, "reason": REASON})
    _, document = check(LENET)
    suppressed = found(document, "suppressed")
    assert {(target, layer) for target, _rule, layer in suppressed} == expected
    assert {rule for _target, rule, _layer in suppressed} <= {entry["rule"].upper()}
    assert found(document) == every - suppressed


@pytest.mark.parametrize(
    "entry", [{"rule": "LA003"}, {"rule": "LA003", "reason": " "}, {"rule": "", "reason": "x"}]
)
def test_rule_and_reason_are_required(project: Path, entry: dict[str, str]) -> None:
    ignore(project, entry)
    result = run("check", LENET, "--no-confirm")
    assert result.exit_code == 2
    missing = "rule" if entry.get("reason") == "x" else "reason"
    assert f"leakaudit.toml: ignore 1: {missing}: it is required" in result.stderr


def test_a_list_of_rules_is_told_how_to_give_a_reason(project: Path) -> None:
    (project / "leakaudit.toml").write_text('ignore = ["LA010"]\n')
    result = run("check", LENET, "--no-confirm")
    assert result.exit_code == 2
    assert "[[ignore]]" in result.stderr
    assert "reason" in result.stderr


def test_in_pyproject(project: Path) -> None:
    text = f"[[tool.leakaudit.ignore]]\nrule = 'LA003'\nreason = {json.dumps(REASON)}\n"
    (project / "pyproject.toml").write_text(text)
    _, document = check(LENET)
    assert found(document, "suppressed") == {(LENET, "LA003", "fc1")}


def test_an_unknown_rule_is_an_error_with_a_suggestion(project: Path) -> None:
    ignore(project, {"rule": "LA03", "reason": REASON})
    result = run("check", LENET, "--no-confirm")
    assert result.exit_code == 2
    assert "leakaudit.toml: ignore 1: there is no rule 'LA03'; did you mean LA0" in result.stderr


def test_an_unused_suppression_is_reported(project: Path) -> None:
    ignore(
        project,
        {"rule": "LA003", "layer": "fc2", "reason": "of old"},
        {"rule": "LA003", "layer": "fc1", "reason": REASON},
    )
    result = run("check", LENET, "--no-confirm", "--format", "json")
    (line,) = result.stderr.splitlines()
    assert line.startswith("leakaudit: warning: ")
    assert "LA003 on layer fc2" in line
    assert "of old" in line
    assert [use["unused"] for use in json.loads(result.stdout)["ignores"]] == [True, False]


def test_unused_is_said_only_where_the_run_could_have_used_it(project: Path) -> None:
    entry = {"rule": "LA003", "target": "cnn6_d.onnx", "reason": REASON}
    ignore(project, entry)
    assert run("check", LENET, "--no-confirm").stderr == ""  # a hook names one file
    assert run("check", CNN6_D, "--no-confirm", "--select", "LA001").stderr == ""
    assert "warning" in run("check", CNN6_D, "--no-confirm").stderr
    # Over all targets of the configuration even one for a file that is gone is unused.
    ignore(project, {**entry, "target": "gone.onnx"})
    with (project / "leakaudit.toml").open("r+") as file:
        text = file.read()
        file.seek(0)
        file.write('targets = ["models"]\n' + text)
    assert "LA003 on gone.onnx" in run("check", "--no-confirm").stderr


def test_two_suppressions_of_one_finding_are_both_used(project: Path) -> None:
    ignore(
        project,
        {"rule": "LA003", "reason": "the first"},
        {"rule": "LA003", "layer": "fc1", "reason": "the second"},
    )
    result = run("check", LENET, "--no-confirm", "--format", "json")
    assert result.stderr == ""
    (suppressed,) = json.loads(result.stdout)["models"][0]["suppressed"]
    assert suppressed["reason"] == "the first"


def test_no_ignores_disables_them(project: Path) -> None:
    every = found(check(LENET, "--isolated")[1])
    ignore(project, {"rule": "LA003", "reason": REASON}, {"rule": "LA012", "reason": "unused"})
    result = run("check", LENET, "--no-confirm", "--format", "json", "--no-ignores")
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert found(document) == every
    assert document["ignores"] == []


def test_sarif_says_suppressed_and_why(project: Path) -> None:
    ignore(project, {"rule": "LA003", "reason": REASON})
    text = run("check", LENET, "--no-confirm", "--format", "sarif").stdout
    official = json.loads((ROOT / "tests/report/schemas/sarif-2.1.0.json").read_text())
    assert list(Draft7Validator(official).iter_errors(json.loads(text))) == []
    results = json.loads(text)["runs"][0]["results"]
    given = {r["ruleId"]: r["suppressions"] for r in results if "suppressions" in r}
    expected = {"kind": "external", "status": "accepted", "justification": REASON}
    assert given == {"LA003": [expected]}
    everything = run("check", LENET, "--no-confirm", "--format", "sarif", "--no-ignores").stdout
    assert len(results) == len(json.loads(everything)["runs"][0]["results"])


@pytest.mark.parametrize("name", sorted(set(REPORTERS) - {"json", "sarif"}))
def test_other_formats_leave_it_out(project: Path, name: str) -> None:
    arguments = ("check", LENET, "--no-confirm", "--format", name, "--select", "LA001,LA003")
    assert "LA003" in run(*arguments).stdout
    ignore(project, {"rule": "LA003", "reason": REASON})
    text = run(*arguments).stdout
    assert "LA003" not in text
    assert "LA001" in text


@pytest.mark.parametrize("name", ["table", "github", "markdown", "html", "junit"])
def test_the_summary_says_how_many(project: Path, name: str) -> None:
    ignore(project, {"rule": "LA002", "reason": REASON})
    text = run("check", LENET, "--no-confirm", "--format", name).stdout
    assert "3 suppressed by the configuration" in text


def test_a_hostile_reason_is_inert(project: Path) -> None:
    ignore(project, {"rule": "LA012", "reason": "\x1b[31m::error::x\n::error::y"})
    result = run("check", LENET, "--no-confirm")
    assert "\x1b" not in result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("leakaudit: warning: ")


def test_a_suppressed_finding_is_neither_known_nor_fixed(project: Path) -> None:
    """Before the baseline: suppressing what it holds does not call it fixed."""
    run("baseline", LENET)
    ignore(project, {"rule": "LA003", "reason": REASON})
    result = run("check", LENET, "--no-confirm", "--baseline", "leakaudit-baseline.json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "8 known from the baseline; 1 suppressed" in result.stdout
    run("baseline", LENET, "--update")
    assert "LA003" not in Path("leakaudit-baseline.json").read_text()
