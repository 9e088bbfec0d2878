"""`bench table`: what its rows say, and that finished ones outlive an interruption."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from places import SAMPLES as MODELS

torch = pytest.importorskip("torch")

from click.testing import CliRunner

from leakaudit.bench import table
from leakaudit.bench.data import Picture
from leakaudit.cli.bench import bench
from leakaudit.confirm.probes import make_probe

SHAPE = (1, 3, 32, 32)


def synthetic(dataset: str, count: int, shape: tuple[int, ...]) -> tuple[Picture, ...]:
    """Pictures without the packages that carry the real ones."""
    return tuple(
        Picture(f"made-{seed}", dataset, None, make_probe(shape, seed).values, "made")
        for seed in range(count)
    )


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.setattr(table, "pictures", synthetic)
    output = str(tmp_path / "table.json")
    fast = ["--networks", "lenet_main", "--iterations", "1", "--starts", "1"]
    return ["table", "--models", str(MODELS), "--output", output, *fast]


def read(arguments: list[str]) -> Any:
    return json.loads(Path(arguments[arguments.index("--output") + 1]).read_text("utf-8"))


def test_three_methods_on_one_picture(arguments: list[str]) -> None:
    result = CliRunner().invoke(bench, [*arguments, "--images", "1"])
    assert result.exit_code == 0, result.output
    content = read(arguments)
    assert content["complete"]
    rows = {row["method"]: row for row in content["rows"]}
    assert rows.keys() == {"R-CONV", "DLG", "R-GAP"}
    ours = rows["R-CONV"]
    assert ours["mse"] < 1e-6
    assert ours["psnr"] == pytest.approx(-10 * math.log10(ours["mse"]), abs=0.05)
    published = 10 * math.log10(255**2 / ours["mse"])
    assert ours["psnr_published_convention"] == pytest.approx(published, abs=0.1)
    assert ours["ssim"] == pytest.approx(1, abs=1e-3)
    assert rows["DLG"]["iterations"] == 1
    assert rows["DLG"]["mse"] > ours["mse"]
    assert "logistic loss" in rows["R-GAP"]["failure"]
    assert rows["R-GAP"]["mse"] is None
    ratios = {entry["method"]: entry["seconds_ratio"] for entry in content["summary"]}
    expected = rows["DLG"]["seconds"] / ours["seconds"]
    assert ratios["DLG"] == pytest.approx(expected, rel=1e-2)
    assert ratios["R-GAP"] is None
    assert "R-CONV" in result.stdout
    assert "lenet_main, made-0: R-CONV" in result.stderr


def test_an_interruption_keeps_the_finished_rows(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = table.Dlg.attack

    def interrupted(*rest: Any) -> Any:
        monkeypatch.setattr(table.Dlg, "attack", attack)
        raise KeyboardInterrupt

    monkeypatch.setattr(table.Dlg, "attack", interrupted)
    result = CliRunner().invoke(bench, [*arguments, "--images", "2"])
    assert result.exit_code == 130
    content = read(arguments)
    assert not content["complete"]
    assert [row["method"] for row in content["rows"]] == ["R-CONV"]
    assert "interrupted" in result.stderr
    assert "R-CONV" in result.stdout


def test_a_missing_network_is_named(tmp_path: Path) -> None:
    from leakaudit.cli.main import main

    output = str(tmp_path / "t.json")
    command = ["bench", "table", "--models", str(tmp_path), "--networks", "nn", "--output", output]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "nn.onnx" in result.stderr
    assert "--models" in result.stderr


def test_an_unknown_method_is_a_usage_error() -> None:
    result = CliRunner().invoke(bench, ["table", "--methods", "rconv,magic"])
    assert result.exit_code == 2
    assert "magic" in result.stderr


def test_the_client_trains_on_the_pictures_own_label() -> None:
    """With the softmax of the logits minus the label's one as the head's bias gradient."""
    graph = table.load_network(MODELS, "lenet_main")
    weights = table.load_weights(graph, torch.device("cpu"))
    x = make_probe(SHAPE, 0).values
    kept = {name: w.clone() for name, w in weights.items()}
    for label in (3, 7):
        picture = Picture("p", "cifar100", label, x, "")
        gradients, loss, said = table.client(graph, weights, picture, "float64")
        assert (loss, said) == ("cross-entropy", f"label {label}")
        bias = gradients[graph.nodes[-1].parameter("bias") or ""]
        assert float(bias[label]) < 0
        assert float(bias.sum()) == pytest.approx(0, abs=1e-12)
    assert all(torch.equal(weights[name], w) for name, w in kept.items())
    assert not any(w.requires_grad for w in weights.values())
