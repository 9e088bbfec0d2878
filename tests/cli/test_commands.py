"""The commands: imported when they are called, and described by a table until then."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from leakaudit.cli.main import COMMANDS, imported, main

HEAVY = {"numpy", "onnx", "sympy", "torch", "joblib"}


def loaded_by(*lines: tuple[str, ...]) -> set[str]:
    """The modules that one process holds after it has run these command lines."""
    program = """
import json, sys
from leakaudit.cli.main import main
for line in json.loads(sys.argv[1]):
    try:
        main(line, prog_name="leakaudit")
    except SystemExit as end:
        assert not end.code, end.code
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(lines)],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    command = imported(name)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.get_short_help_str(limit=1000) == COMMANDS[name]
    assert main.commands[name].get_short_help_str(limit=1000) == COMMANDS[name]


def test_the_front_door_imports_no_command() -> None:
    loaded = loaded_by(("--version",), ("--help",))
    assert not loaded & {*HEAVY, "tabulate"}
    ours = {"leakaudit", "leakaudit.cli", "leakaudit.errors"} | {
        f"leakaudit.cli.{name}" for name in ("main", "interrupts")
    }
    assert {name for name in loaded if name.startswith("leakaudit")} == ours


def test_help_and_completion_load_nothing_heavy() -> None:
    lines = [(name, "--help") for name in COMMANDS]
    loaded = loaded_by(("completion", "bash"), *lines)
    assert "leakaudit.cli.check" in loaded
    assert not loaded & HEAVY


def test_rules_are_text() -> None:
    assert not loaded_by(("rules",), ("explain", "LA001")) & HEAVY


def test_the_name_of_a_command_is_completed_with_its_help() -> None:
    shell = ShellComplete(main, {}, "leakaudit", "_LEAKAUDIT_COMPLETE")
    (item,) = shell.get_completions([], "ch")
    assert (item.value, item.help) == ("check", "Audit models and confirm what is flagged.")


def test_a_mistyped_command_is_named() -> None:
    result = CliRunner().invoke(main, ["chek"])
    assert result.exit_code == 2
    assert "No such command 'chek'" in result.stderr
