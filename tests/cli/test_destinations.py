"""Reports never replace what the run reads, and a place that cannot be written is named at once."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from places import SAMPLES

from leakaudit.cli.main import main
from leakaudit.frontends.registry import expand
from leakaudit.report.destination import write_text


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copy(SAMPLES / "tabular_mlp.onnx", tmp_path / "model.onnx"))


def check(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["check", "--no-confirm", *map(str, arguments)])


def refused(done: Result, option: str, reason: str) -> None:
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"leakaudit: {option} ")
    assert reason in line
    assert not done.stdout


@pytest.mark.parametrize("option", ["--output", "--report=json"])
def test_a_report_never_replaces_an_input(option: str, model: Path, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('loss = "mse"\n', encoding="utf-8")
    baseline = tmp_path / "known.json"
    made = CliRunner().invoke(main, ["baseline", str(model), "--output", str(baseline)])
    assert made.exit_code == 0, made.stderr
    name = option.partition("=")[0]
    for file in (model, config, baseline):
        before = file.read_bytes()
        place = [option, file] if option == "--output" else [f"{option}={file}"]
        done = check(model, "--config", config, "--baseline", baseline, *place)
        refused(done, name, "this run reads that file")
        assert file.read_bytes() == before


def test_nor_through_a_link_or_another_spelling(model: Path, tmp_path: Path) -> None:
    link = tmp_path / "report.json"
    link.symlink_to(model)
    refused(check(tmp_path, "-o", link), "--output", "this run reads that file")
    other = tmp_path / "sub" / ".." / "model.onnx"
    (tmp_path / "sub").mkdir()
    refused(check(model, "-o", other), "--output", "this run reads that file")


def test_the_configuration_cannot_name_the_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leakaudit.toml").write_text('output = "model.onnx"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    before = model.read_bytes()
    refused(check("model.onnx"), "--output", "this run reads that file")
    assert model.read_bytes() == before


def test_two_reports_need_two_files(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "report"
    done = check(model, "-o", file, f"--report=sarif={file}")
    refused(done, "--report", "--output writes that file already")
    assert not file.exists()


def test_a_missing_folder_is_named_before_the_audit(model: Path, tmp_path: Path) -> None:
    missing = tmp_path / "none" / "report.json"
    refused(check(model, "-o", missing), "--output", "cannot be written")
    good = tmp_path / "report.json"
    done = check(model, "-o", good, f"--report=sarif={missing}")
    refused(done, "--report", "cannot be written")
    assert not good.exists()
    refused(check(model, f"--report=json={tmp_path}"), "--report", "Is a directory")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    file = tmp_path / "real" / "report.txt"
    file.parent.mkdir()
    link = tmp_path / "latest.txt"
    link.symlink_to(file)
    write_text(link, "one\n")
    write_text(link, "two\n")
    assert link.is_symlink()
    assert file.read_text(encoding="utf-8") == "two\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_regular_file_is_written_in_place(model: Path, tmp_path: Path) -> None:
    """A pipe stands for /dev/null and /dev/stdout, which a test must not put at risk."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "leakaudit", "check", str(model), "--no-confirm"]
    with subprocess.Popen([*command, "--format", "json", "-o", str(pipe)]) as run:
        text = pipe.read_text(encoding="utf-8")
    assert run.returncode == 1
    assert text.startswith("{")
    assert pipe.is_fifo()


def in_shell(command: str) -> subprocess.CompletedProcess[str]:
    tool = f"{sys.executable} -m leakaudit"
    words = ["bash", "-c", command.replace("leakaudit", tool, 1)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_a_closed_stdout_is_no_crash(model: Path) -> None:
    done = in_shell(f"leakaudit check {model} --no-confirm >&-")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("streams", ["|", "2>&1 |"])
def test_a_reader_that_has_gone_changes_no_exit_code(
    streams: str, model: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"")
    report = tmp_path / "report.json"
    options = f"--no-confirm --report json={report}"
    done = in_shell(f"leakaudit check {model} {bad} {options} {streams} true; exit $PIPESTATUS")
    assert done.returncode == 3
    assert done.stderr.count("leakaudit: ") == (1 if streams == "|" else 0)
    assert "Error" not in done.stderr
    assert report.exists()


@pytest.mark.parametrize("command", ["rules", "explain LA001"])
def test_nor_that_of_other_commands(command: str) -> None:
    assert in_shell(f"leakaudit {command} | true; exit $PIPESTATUS").returncode == 0


def test_a_full_disk_is_one_line(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, err: bool = False, **_more: object) -> None:
        if not err:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sys.stderr.write(f"{_arguments[0]}\n")

    monkeypatch.setattr("leakaudit.cli.terminal.click.echo", full)
    done = check(model)
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "leakaudit: stdout: the report cannot be written (No space left on device); make room, or "
        "name a file with --output"
    ]


def test_a_working_folder_that_has_gone_is_one_line(model: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = in_shell(f"cd {gone}; rmdir {gone}; leakaudit check {model} --no-confirm")
    assert done.returncode == 2
    assert "working folder no longer exists" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_an_empty_target_is_no_folder(model: Path) -> None:
    done = check("", model)
    assert done.exit_code == 2
    assert "a target is empty" in done.stderr


def test_html_is_readable_in_any_encoding_of_stdout(model: Path) -> None:
    command = [sys.executable, "-m", "leakaudit", "check", str(model), "--no-confirm"]
    done = subprocess.run(
        [*command, "--format", "html"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )
    assert done.returncode == 1
    assert done.stdout.isascii()
    assert b"&#" in done.stdout


def test_linked_folders_are_searched_once(model: Path, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    elsewhere = tmp_path / "elsewhere"
    registry.mkdir()
    elsewhere.mkdir()
    shutil.copy(model, elsewhere / "far.onnx")
    (registry / "linked").symlink_to(elsewhere)
    (elsewhere / "ring").symlink_to(registry)
    assert expand(str(registry)) == (str(registry / "linked" / "far.onnx"),)
