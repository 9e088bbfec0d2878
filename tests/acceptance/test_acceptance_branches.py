"""What the tool promises about networks that branch, through the front door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from places import SAMPLES

from leakaudit.cli.main import main

# The front of ViT-S/16 with one encoder block: 224x224 pixels, 16x16 patches, 384 wide.
VIT_S_16 = """
import torch
from torch import nn


class Network(nn.Module):
    input_shape = (1, 3, 224, 224)

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 384, 16, stride=16)
        self.positions = nn.Parameter(torch.empty(1, 196, 384))
        self.block = nn.TransformerEncoderLayer(384, 6, 1536, 0.0, "gelu", batch_first=True)
        self.head = nn.Linear(384, 10)

    def forward(self, image):
        tokens = self.patches(image).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.block(tokens).mean(dim=1))


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(43)
        built = Network()
        nn.init.normal_(built.positions, std=0.02)
    return built
"""


def audit(target: Path | str, *arguments: str) -> dict[str, Any]:
    """Run `check --format json` on one target."""
    result = CliRunner().invoke(main, ["check", str(target), *arguments, "--format", "json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    (model,) = json.loads(result.stdout)["models"]
    assert model["error"] is None
    assert model["complete"]
    return model


def rules(model: dict[str, Any]) -> set[str]:
    return {finding["rule"] for finding in model["findings"]}


def evidence(model: dict[str, Any], rule: str) -> dict[str, Any]:
    (finding,) = [f for f in model["findings"] if f["rule"] == rule]
    return finding["confirmation"]


def assert_confirmed(model: dict[str, Any], *, mse: float) -> None:
    assert model["leak_path"]["reaches_input"]
    assert model["leak_path"]["stopped"] == []
    found = evidence(model, "LA004")
    assert (found["status"], found["scope"]) == ("confirmed", "end to end")
    assert found["mse"] <= mse


def the_stop(model: dict[str, Any]) -> tuple[str, str]:
    """Where and why the path stops; nothing about the input may be claimed then."""
    assert not model["leak_path"]["reaches_input"]
    assert not rules(model) & {"LA004", "LA009"}
    assert "LA012" in rules(model)
    (stop,) = model["leak_path"]["stopped"]
    return stop["at"], stop["reason"]


# 60 dB of PSNR, and the MSE that float64 gradients give.
FLOAT32, FLOAT64 = 1e-6, 1e-18


@pytest.mark.parametrize(("dtype", "mse"), [("float32", FLOAT32), ("float64", FLOAT64)])
@pytest.mark.parametrize("target", ["vit.pt2", "branching.py:vit"])
def test_a_learned_position_embedding_gives_the_image_away(
    target: str, dtype: str, mse: float
) -> None:
    model = audit(SAMPLES / target, "--gradient-dtype", dtype)
    assert_confirmed(model, mse=mse)
    assert evidence(model, "LA009") == evidence(model, "LA004")
    # The way leads past the attention: two parameters are enough.
    layers = {step["layer"] for step in model["leak_path"]["steps"]}
    assert "patch_embedding" in layers
    assert not layers & {"query", "key", "value", "out", "mlp_in", "mlp_out", "head"}


@pytest.mark.parametrize(("dtype", "mse"), [("float32", FLOAT32), ("float64", FLOAT64)])
def test_the_patch_embedding_of_vit_s_16(tmp_path: Path, dtype: str, mse: float) -> None:
    file = tmp_path / "vit_s_16.py"
    file.write_text(VIT_S_16, encoding="utf-8")
    model = audit(f"{file}:network", "--gradient-dtype", dtype)
    assert_confirmed(model, mse=mse)
    found = evidence(model, "LA009")
    assert found["unknowns"] == found["rank"] == 224 * 224 * 3
    assert found["psnr"] >= 60


def test_fixed_positions_stop_the_path() -> None:
    at, reason = the_stop(audit(SAMPLES / "vit_sinusoidal.pt2"))
    assert at == "norm3"
    assert "statistic" in reason


@pytest.mark.parametrize("target", ["vit.pt2", "branching.py:vit"])
def test_a_frozen_position_embedding_stops_the_path(target: str) -> None:
    model = audit(SAMPLES / target, "--frozen", "*pos*")
    at, reason = the_stop(model)
    assert at == "norm3"
    assert "statistic" in reason
    # The patch embedding itself still sends its gradient.
    assert "LA002" in {f["rule"] for f in model["findings"] if f["layer"] == "patch_embedding"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("target", ["resnet_leaky.pt2", "branching.py:resnet_leaky"])
def test_a_residual_connection_hides_nothing(target: str, dtype: str) -> None:
    model = audit(SAMPLES / target, "--gradient-dtype", dtype)
    assert_confirmed(model, mse=1e-8 if dtype == "float32" else 1e-20)
    assert evidence(model, "LA010")["status"] == "confirmed"
    # Nowhere on the way was a layer solved with more than the gradients gave.
    scopes = {f["confirmation"]["scope"] for f in model["findings"]}
    assert scopes == {"end to end"}


def test_global_average_pooling_stops_the_path() -> None:
    model = audit(SAMPLES / "resnet_gap.pt2")
    at, reason = the_stop(model)
    assert "pool" in at
    assert reason.endswith("averaging merges 1 x 16 x 8 x 8 values into 1 x 16 x 1 x 1")
    found = evidence(model, "LA005")  # the 16 averages come back all the same
    assert (found["status"], found["scope"]) == ("confirmed", "end to end")


def test_too_few_gradient_constraints_stop_the_path_in_the_block() -> None:
    model = audit(SAMPLES / "resnet_short.pt2")
    at, reason = the_stop(model)
    assert at == "block.b"
    # 12 x 12 filters with 3 x 3 taps stand against 12 x 16 x 16 unknowns.
    assert "its output is not known" in reason
    assert "rank bound 1296 of 3072 unknowns" in reason
    (finding,) = [f for f in model["findings"] if (f["rule"], f["layer"]) == ("LA003", "fc1")]
    assert finding["confirmation"]["status"] == "confirmed"


@pytest.mark.parametrize("name", ["vit", "resnet_leaky"])
def test_two_examples_in_one_gradient_stop_the_path_with_the_reason(name: str) -> None:
    model = audit(SAMPLES / f"branching.py:{name}", "--batch-size", "2")
    assert model["inputs"][0]["shape"] == [2, 3, 32, 32]
    at, reason = the_stop(model)
    assert at == {"vit": "head", "resnet_leaky": "fc1"}[name]
    assert "summed over 2 examples" in reason
