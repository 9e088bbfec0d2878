"""What fails a gate: severity and evidence, the same in every format; several targets at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from places import SAMPLES

from leakaudit.cli.main import main
from leakaudit.findings import (
    AuditReport,
    Confirmation,
    Finding,
    ModelReport,
    Scope,
    Severity,
    Skipped,
    Status,
    Suppressed,
)
from leakaudit.pipeline.gate import Evidence, exit_code, incomplete
from leakaudit.report import REPORTERS

LENET = SAMPLES / "lenet_main.onnx"


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in (*arguments, "--isolated")])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def finding(severity: Severity, status: Status | None = None) -> Finding:
    given = None if status is None else Confirmation(status, Scope.LOCAL, "a reason")
    return Finding("LA001", "title", severity, "conv1", "message", "0" * 16, "", "", given)


def report(*findings: Finding, **more: object) -> AuditReport:
    given: dict[str, object] = {"complete": True, "findings": findings, **more}
    return AuditReport("1", (ModelReport("m.onnx", "onnx", None, **given),))


# --- by severity and evidence --------------------------------------------------------------------


@pytest.mark.parametrize("status", [None, *Status])
@pytest.mark.parametrize("severity", list(Severity))
@pytest.mark.parametrize("fail_on", list(Severity))
def test_flagged_counts_whatever_became_of_the_confirmation(
    status: Status | None, severity: Severity, fail_on: Severity
) -> None:
    worse = list(Severity).index(severity) <= list(Severity).index(fail_on)
    assert exit_code(report(finding(severity, status)), fail_on) == int(worse)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (None, 0),
        (Status.NOT_REPRODUCED, 0),
        (Status.INCONCLUSIVE, 0),
        (Status.CONFIRMED, 1),
        (Status.NOT_RUN, 3),
    ],
)
def test_confirmed_counts_only_what_came_back(status: Status | None, code: int) -> None:
    audited = report(finding(Severity.HIGH, status))
    assert exit_code(audited, Severity.HIGH, Evidence.CONFIRMED) == code
    assert exit_code(audited, Severity.CRITICAL, Evidence.CONFIRMED) == 0


def test_what_was_never_put_to_the_test_is_named() -> None:
    (model,) = report(finding(Severity.HIGH, Status.NOT_RUN)).models
    line = incomplete(model, Severity.MEDIUM, Evidence.CONFIRMED)
    assert line is not None
    assert "m.onnx: LA001 on conv1" in line
    assert "a reason" in line
    assert incomplete(model) is None


@pytest.mark.parametrize("evidence", list(Evidence))
def test_an_incomplete_audit_weighs_more(evidence: Evidence) -> None:
    confirmed = finding(Severity.CRITICAL, Status.CONFIRMED)
    skipped = (Skipped("n", "unsupported operator X"),)
    partial = report(confirmed, complete=False, skipped=skipped)
    assert exit_code(partial, Severity.NOTE, evidence) == 3
    assert exit_code(report(error="no"), Severity.NOTE, evidence) == 3
    assert exit_code(AuditReport("1", ()), Severity.NOTE, evidence) == 3


def test_suppressed_and_known_findings_do_not_count() -> None:
    confirmed = finding(Severity.CRITICAL, Status.CONFIRMED)
    apart = report(known=(confirmed,), suppressed=(Suppressed(confirmed, "a reason"),))
    for evidence in Evidence:
        assert exit_code(apart, Severity.NOTE, evidence) == 0


# --- on the command line -------------------------------------------------------------------------


def test_a_confirmed_leak_fails_a_gate_on_evidence() -> None:
    gate = ("check", LENET, "--fail-on-evidence", "confirmed")
    assert run(*gate, "--select", "LA004").exit_code == 1


def test_an_unconfirmed_finding_passes_a_gate_on_evidence() -> None:
    """The first layer of this network does not read every pixel: those never come back."""
    arguments = ("check", SAMPLES / "lenet_unread.onnx", "--select", "LA005", "--format", "json")
    result = run(*arguments)
    findings = json.loads(result.stdout)["models"][0]["findings"]
    assert [f["confirmation"]["status"] for f in findings] == ["not reproduced"]
    assert result.exit_code == 1
    assert run(*arguments, "--fail-on-evidence", "confirmed").exit_code == 0


def test_evidence_without_confirmation_is_wrong_usage() -> None:
    result = run("check", LENET, "--fail-on-evidence", "confirmed", "--no-confirm")
    assert result.exit_code == 2
    assert "--fail-on-evidence confirmed needs the confirmation" in result.stderr


def test_a_confirmation_that_ran_out_of_time_does_not_pass_the_gate() -> None:
    gate = ("--fail-on-evidence", "confirmed", "--time-budget", "0", "--select", "LA001")
    result = run("check", SAMPLES / "resnet_gap.pt2", *gate)
    assert result.exit_code == 3
    assert "--time-budget" in result.stderr


@pytest.mark.parametrize("name", sorted(REPORTERS))
def test_the_exit_code_is_the_same_in_every_format(name: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    arguments = ("--no-confirm", "--format", name)
    assert run("check", LENET, *arguments).exit_code == 1
    assert run("check", LENET, *arguments, "--exit-zero").exit_code == 0
    assert run("check", LENET, *arguments, "--select", "LA010").exit_code == 0
    assert run("check", LENET, broken, *arguments, "--exit-zero").exit_code == 3
    assert run("check", LENET, *arguments, "--severity", "critical", "--select", "LA003").exit_code


# --- several targets -----------------------------------------------------------------------------


def targets(*arguments: str | Path) -> list[str]:
    result = run("check", *arguments, "--no-confirm", "--format", "json")
    return [model["target"] for model in json.loads(result.stdout)["models"]]


def test_several_files_and_folders_in_the_order_given(tmp_path: Path) -> None:
    for folder, names in {"a": ["lenet", "cnn6"], "b/deep": ["lenet_o"]}.items():
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            shutil.copy(SAMPLES / f"{name}.onnx", tmp_path / folder)
    audited = targets(tmp_path / "b", LENET, tmp_path / "a")
    assert audited == [
        str(tmp_path / "b/deep/lenet_o.onnx"),
        str(LENET),
        str(tmp_path / "a/cnn6.onnx"),
        str(tmp_path / "a/lenet.onnx"),
    ]


def test_a_file_given_twice_is_audited_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    shutil.copy(LENET, tmp_path / "a" / "net.onnx")
    (tmp_path / "link.onnx").symlink_to(tmp_path / "a" / "net.onnx")
    monkeypatch.chdir(tmp_path)
    spellings = ("a/net.onnx", "./a/net.onnx", tmp_path / "a/net.onnx", "a", "a/../a", "link.onnx")
    assert targets(*spellings) == ["a/net.onnx"]
    assert targets(*reversed(spellings)) == ["link.onnx"]


def test_two_files_with_the_same_content_are_two(tmp_path: Path) -> None:
    for name in ("one.onnx", "two.onnx"):
        shutil.copy(LENET, tmp_path / name)
    assert len(targets(tmp_path)) == 2


def test_a_failing_target_keeps_its_place(tmp_path: Path) -> None:
    absent = tmp_path / "absent.onnx"
    empty = tmp_path / "empty"
    empty.mkdir()
    audited = targets(absent, LENET, empty, absent, SAMPLES / "lenet.onnx")
    assert [Path(name).name for name in audited][:3] == [
        "absent.onnx",
        "lenet_main.onnx",
        "empty",
    ]
