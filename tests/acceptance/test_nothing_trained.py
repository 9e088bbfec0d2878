"""A model of which no parameter is trained sends no gradient: nothing can follow from it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from places import SAMPLES

from leakaudit.cli.main import main


@pytest.mark.parametrize("name", ["lenet_main.onnx", "vit.pt2"])
def test_a_wholly_frozen_model_has_no_equations(name: str) -> None:
    arguments = ["check", str(SAMPLES / name), "--frozen", "*", "--format", "json"]
    done = CliRunner().invoke(main, [*arguments, "--no-confirm"])
    assert done.exit_code == 0, done.stdout
    (model,) = json.loads(done.stdout)["models"]
    assert model["complete"]
    assert not model["leak_path"]["steps"]
    for layer in model["layers"]:
        counts = layer["counts"]
        assert counts["gradient_constraints"] == counts["weight_constraints"] == 0
        assert counts["rank_bound"] == 0
        assert counts["symbolic"]["weight_constraints"] == "0"
    assert {finding["rule"] for finding in model["findings"]} <= {"LA012"}
