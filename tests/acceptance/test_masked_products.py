"""A product with a stored mask is undone where the mask is not 0, and claimed nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from leakaudit.cli.main import main
from leakaudit.frontends.aten import reader as pt2_model
from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.onnx import reader as onnx_model
from leakaudit.operators import Mul


class Masked(nn.Module):
    """A mask between 12 x 4 x 4 features and the head: of the channels, or of the positions."""

    def __init__(self, hidden: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.head = nn.Linear(12 * 16, 10)
        mask = torch.full(shape, 2.0)
        mask.view(-1)[:hidden] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((torch.tanh(self.conv(x)) * self.mask).flatten(1))


CHANNELS, POSITIONS = (12, 1, 1), (1, 4, 4)


def saved(folder: Path, hidden: int, shape: tuple[int, ...], suffix: str) -> Path:
    path = folder / f"masked{suffix}"
    model, example = Masked(hidden, shape).eval(), (torch.zeros(1, 3, 8, 8),)
    if suffix == ".pt2":
        torch.export.save(torch.export.export(model, example), path)
    else:
        torch.onnx.export(model, example, path, dynamo=False, do_constant_folding=False)
    return path


def check(path: Path) -> dict:
    arguments = ["check", str(path), "--format", "json", "--isolated"]
    document = json.loads(CliRunner().invoke(main, arguments).stdout)
    return document["models"][0]


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize(
    ("shape", "hidden", "zeros"), [(POSITIONS, 0, 0), (POSITIONS, 5, 60), (CHANNELS, 3, 48)]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_zeros_are_counted_in_the_output(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], hidden: int, zeros: int
) -> None:
    read = pt2_model.load if suffix == ".pt2" else onnx_model.load
    graph = read(str(saved(tmp_path, hidden, shape, suffix)), LoadOptions())
    assert [node.op for node in graph.nodes if isinstance(node.op, Mul)] == [Mul(zeros)]


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_the_mask_keeps_is_claimed_and_reproduced(tmp_path: Path, suffix: str) -> None:
    model = check(saved(tmp_path, 3, CHANNELS, suffix))
    (undone,) = [step for step in model["leak_path"]["steps"] if step["kind"] == "branch-value"]
    assert undone["fact"].endswith("where a stored condition keeps it")
    (found,) = [finding for finding in model["findings"] if finding["rule"] == "LA004"]
    assert found["confirmation"]["status"] == "confirmed"
    assert found["confirmation"]["mse"] < 1e-9  # from float32 gradients


def test_a_mask_that_hides_too_much_is_not_claimed_to_be_undone(tmp_path: Path) -> None:
    model = check(saved(tmp_path, 12, POSITIONS, ".pt2"))  # 48 outputs + 324 of rank at most 4 * 12
    assert not any("exactly" in step["fact"] for step in model["leak_path"]["steps"])
    (found,) = [finding for finding in model["findings"] if finding["rule"] == "LA004"]
    assert found["confirmation"]["status"] == "not reproduced"
    assert "rank" in found["confirmation"]["reason"]


def test_a_mask_of_zeros_only_passes_nothing(tmp_path: Path) -> None:
    model = check(saved(tmp_path, 16, POSITIONS, ".pt2"))
    assert "LA004" not in {finding["rule"] for finding in model["findings"]}
    assert model["complete"]
