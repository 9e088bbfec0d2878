"""Shell completion: what is offered, and that a shell can use it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from places import SAMPLES

from leakaudit.cli.main import main


def offered(*words: str) -> list[str]:
    """What is offered for the last word."""
    *before, incomplete = words
    shell = ShellComplete(main, {}, "leakaudit", "_LEAKAUDIT_COMPLETE")
    return [item.value for item in shell.get_completions(before, incomplete)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.onnx", "b.pt2", "B.ONNX", "notes.txt", "train.py", ".hidden.onnx"):
        (tmp_path / name).touch()
    (tmp_path / "models" / "old").mkdir(parents=True)
    (tmp_path / "models" / "c.onnx").touch()
    (tmp_path / "models" / "old" / "d.pt2").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands() -> None:
    assert offered("che") == ["check"]
    assert set(offered("")) == set(main.commands)


def test_options_and_their_values() -> None:
    assert "--no-confirm" in offered("check", "--no-c")
    assert offered("check", "--format", "s") == ["sarif"]
    assert offered("completion", "") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize("command", ["check", "advise", "baseline", "explain"])
def test_model_files(folder: Path, command: str) -> None:
    rules = [it for it in offered(command, "") if it.startswith("LA")]
    assert bool(rules) == (command == "explain")
    files = [it for it in offered(command, "") if it not in rules]
    assert files == ["B.ONNX", "a.onnx", "b.pt2", "models/", "train.py"]
    assert offered(command, "b") == ["b.pt2"]
    assert offered(command, ".h") == [".hidden.onnx"]


def test_a_folder_is_looked_into(folder: Path) -> None:
    """A shell would end the word after a single completion."""
    assert offered("check", "mod") == ["models/c.onnx", "models/old/"]
    assert offered("check", "models/") == ["models/c.onnx", "models/old/"]
    assert offered("check", f"{folder}/models/old/") == [f"{folder}/models/old/d.pt2"]


def test_a_folder_that_is_none(folder: Path) -> None:
    assert offered("check", "absent/x") == []
    assert offered("check", "notes.txt/x") == []


def test_rules() -> None:
    assert offered("check", "--select", "LA00")[:3] == ["LA001", "LA002", "LA003"]
    assert offered("check", "--ignore", "la01") == ["LA010", "LA011", "LA012"]
    assert offered("explain", "LA004") == ["LA004"]


def test_the_users_rules(tmp_path: Path) -> None:
    text = (SAMPLES.parent / "rules" / "LA003.toml").read_text(encoding="utf-8")
    own = text.replace('"LA003"', '"XY001"').replace("dense-bias-reveals-input", "my-rule")
    (tmp_path / "XY001.toml").write_text(own, encoding="utf-8")
    assert offered("check", "--rules", str(tmp_path), "--select", "X") == ["XY001"]
    (tmp_path / "XY001.toml").write_text("nonsense", encoding="utf-8")
    assert offered("check", "--rules", str(tmp_path), "--select", "LA01") == [
        "LA010",
        "LA011",
        "LA012",
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_every_shell(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"_LEAKAUDIT_COMPLETE={shell}_complete" in result.stdout
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes(folder: Path) -> None:
    """The script, in a real shell: its function is what the tab key calls."""
    command = folder / "bin" / "leakaudit"
    command.parent.mkdir()
    program = "from leakaudit.cli.main import main; main(prog_name='leakaudit')"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{program}" "$@"\n')
    command.chmod(0o755)
    script = """
eval "$(leakaudit completion bash)"
complete -p leakaudit
COMP_WORDS=(leakaudit check mod); COMP_CWORD=2
_leakaudit_completion leakaudit
echo "offered: ${COMPREPLY[*]}"
"""
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "-F _leakaudit_completion leakaudit" in done.stdout
    assert "offered: models/c.onnx models/old/" in done.stdout
