"""A `--frozen` pattern that matches nothing freezes nothing, and the report says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from places import SAMPLES

from leakaudit.cli.main import main


def notes(*arguments: str | Path) -> list[list[str]]:
    told = ["check", *map(str, arguments), "--no-confirm", "--format", "json"]
    done = CliRunner().invoke(main, told)
    assert done.exit_code in (0, 1), done.output
    models = json.loads(done.stdout)["models"]
    return [[note for note in model["notes"] if "matches no" in note] for model in models]


@pytest.mark.parametrize("name", ["lenet_main.onnx", "vit.pt2"])
def test_a_pattern_that_matches_no_parameter_has_a_note(name: str) -> None:
    found = notes(SAMPLES / name, "--frozen", "nothing*", "--frozen", "*.weight")
    assert found == [["--frozen nothing*: matches no parameter of this model"]]


def test_each_model_is_asked_for_itself() -> None:
    first, second = notes(
        SAMPLES / "lenet_main.onnx", SAMPLES / "vit.pt2", "--frozen", "fc1.*", "--frozen", "*bias"
    )
    assert first == []
    assert second == ["--frozen fc1.*: matches no parameter of this model"]


def test_patterns_of_the_configuration_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leakaudit.toml").write_text('frozen = ["backbone.*"]\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = notes(SAMPLES / "lenet_main.onnx")
    assert found == [["--frozen backbone.*: matches no parameter of this model"]]
