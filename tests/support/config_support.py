"""Runs of the command line in a folder with a configuration."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from leakaudit.cli.main import main


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def audit(*arguments: str | Path) -> list[dict]:
    result = run("check", *arguments, "--no-confirm", "--format", "json")
    assert result.exit_code in (0, 1), result.stderr
    return json.loads(result.stdout)["models"]


def batch(*arguments: str | Path) -> int:
    """The batch size of the only model audited: what a setting came to."""
    (model,) = audit(*arguments)
    return model["inputs"][0]["shape"][0]


def error(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    return line


LENET = "models/lenet_main.onnx"


def write(folder: Path, text: str, name: str = "leakaudit.toml") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
