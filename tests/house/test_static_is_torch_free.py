"""The static audit needs neither torch nor onnxruntime, and never tries to import them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from places import SAMPLES

# The error is no ImportError: code that tries to import and goes on without must fail too.
GUARD = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnxruntime"):
            raise RuntimeError(f"forbidden import of {name}")

sys.meta_path.insert(0, Forbidden())
"""
MISSING = """
import sys
sys.modules["torch"] = sys.modules["onnxruntime"] = None  # as if they were not installed
"""
MAIN = """
from leakaudit.cli.main import main
main(prog_name="leakaudit")
"""


def run(*arguments: str, prelude: str = GUARD) -> subprocess.CompletedProcess[str]:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", prelude + MAIN, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment | {"PYTHONIOENCODING": "utf-8"},
        timeout=120,
    )


def test_the_guard_catches_an_import() -> None:
    """Otherwise the tests below would pass with torch loaded."""
    for name in ("torch", "torch.nn", "onnxruntime"):
        code = f"{GUARD}\ntry:\n    import {name}\nexcept ImportError:\n    pass"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert result.returncode == 1
        assert "forbidden import" in result.stderr


@pytest.mark.parametrize("model", ["lenet_main.onnx", "lenet_main.pt2"])
def test_check(model: str) -> None:
    result = run("check", str(SAMPLES / model), "--no-confirm", "--format", "json")
    assert (result.returncode, result.stderr) == (1, "")
    (report,) = json.loads(result.stdout)["models"]
    assert report["complete"]
    assert report["leak_path"]["reaches_input"]
    assert len(report["layers"]) == 5


def test_check_writes_a_table() -> None:
    result = run("check", str(SAMPLES / "lenet_main.onnx"), "--no-confirm")
    assert (result.returncode, result.stderr) == (1, "")
    assert "conv4" in result.stdout


def test_rules() -> None:
    result = run("rules")
    assert (result.returncode, result.stderr) == (0, "")
    assert "LA001" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("LA001",), "LA001"),
        ((str(SAMPLES / "lenet_main.onnx"), "--layer", "conv4"), "768"),
        ((str(SAMPLES / "lenet_main.pt2"), "--layer", "conv4"), "768"),
    ],
    ids=["rule", "onnx layer", "pt2 layer"],
)
def test_explain(arguments: tuple[str, ...], expected: str) -> None:
    result = run("explain", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert expected in result.stdout


def test_help() -> None:
    result = run("check", "--help")
    assert result.returncode == 0
    assert "--no-confirm" in result.stdout


def test_confirmation_without_the_extra_says_what_to_install() -> None:
    """Also what the guard cannot show: that torch is looked for before it is imported."""
    result = run("check", str(SAMPLES / "lenet_main.onnx"), prelude=MISSING)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "leakaudit[confirm]" in result.stderr
    assert "--no-confirm" in result.stderr
    assert "Traceback" not in result.stderr
