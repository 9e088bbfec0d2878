"""`--report` writes further reports of the one audit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from leakaudit.cli.main import main

LEAKY = str(Path(__file__).parents[2] / "sample_models" / "lenet_main.onnx")


def check(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", "--no-confirm", *arguments])


def test_every_report_is_what_its_format_prints(tmp_path: Path) -> None:
    formats = ["sarif", "junit", "gitlab", "json"]
    wanted = [f"--report={name}={tmp_path / name}" for name in formats]
    done = check(LEAKY, "--severity", "high", *wanted)
    assert done.exit_code == 1
    assert "LA004" in done.stdout
    for name in formats:
        alone = check(LEAKY, "--severity", "high", "--format", name).stdout
        assert (tmp_path / name).read_text(encoding="utf-8") == alone


def test_a_coloured_terminal_leaves_the_file_plain(tmp_path: Path) -> None:
    file = tmp_path / "a=b.txt"
    done = check(LEAKY, "--color", "always", f"--report=table={file}")
    assert "\x1b[" in done.stdout
    assert "\x1b[" not in file.read_text(encoding="utf-8")


def test_a_run_that_is_incomplete_is_reported_too(tmp_path: Path) -> None:
    done = check(str(tmp_path / "none.onnx"), f"--report=json={tmp_path / 'report.json'}")
    assert done.exit_code == 3
    (model,) = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["models"]
    assert model["complete"] is False


@pytest.mark.parametrize("value", ["sarif", "sarif=", "=x", "word=x", ""])
def test_a_report_names_a_format_and_a_file(value: str, tmp_path: Path) -> None:
    done = check(LEAKY, "--report", value)
    assert done.exit_code == 2
    assert "--report" in done.stderr


def test_a_report_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    done = check(LEAKY, f"--report=json={tmp_path / 'none' / 'report.json'}")
    assert done.exit_code == 2
    assert done.stderr.startswith("leakaudit: --report ")
    assert len(done.stderr.splitlines()) == 1
