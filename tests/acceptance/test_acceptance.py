"""What the tool promises about the reference networks, through the front door."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from places import SAMPLES

from leakaudit.cli.main import main

LENET_MAIN = [(3072, 900, 3072), (3072, 4800, 1024), (1024, 4800, 768), (768, 900, 192)]
PIECEWISE_LINEAR = [
    "lenet",
    "lenet_main",
    "lenet_main_leakyrelu",
    "lenet_o",
    "cnn6_o",
    "lenet_4relu",
    "lenet_allrelu",
    "cnn6",
]
SMOOTH = ["lenet_dlg", "lenet_main_sigmoid", "lenet_main_tanh"]


def audit(*arguments: str) -> tuple[dict[str, Any], int]:
    """Run `check --format json`; the first model and the exit code."""
    result = CliRunner().invoke(main, ["check", *arguments, "--format", "json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return json.loads(result.stdout)["models"][0], result.exit_code


def counted(model: dict[str, Any]) -> list[tuple[int, int, int]]:
    return [
        (c["unknowns"], c["gradient_constraints"], c["weight_constraints"])
        for c in (layer["counts"] for layer in model["layers"] if layer["op"] == "conv")
    ]


def end_to_end(model: dict[str, Any]) -> dict[str, Any]:
    (finding,) = [f for f in model["findings"] if f["rule"] == "LA004"]
    return finding["confirmation"]


@pytest.mark.parametrize("target", ["lenet_main.onnx", "lenet_main.pt2", "networks.py:lenet_main"])
def test_three_formats_give_the_same_counts_and_verdicts(target: str) -> None:
    model, code = audit(str(SAMPLES / target), "--no-confirm")
    assert code == 1
    assert counted(model) == LENET_MAIN
    assert [layer["verdict"] for layer in model["layers"]] == ["flagged"] * 5
    assert [layer["name"] for layer in model["layers"]] == [
        "conv1",
        "conv2",
        "conv3",
        "conv4",
        "fc1",
    ]
    assert model["leak_path"]["reaches_input"]
    assert model["complete"]


def test_the_slides_formula_calls_the_last_convolution_safe() -> None:
    """And the explanation shows it beside the right count, which flags the layer."""
    layer = ["explain", str(SAMPLES / "lenet_main.onnx"), "--layer", "conv4"]
    result = CliRunner().invoke(main, layer)
    assert result.exit_code == 0
    exact, slides = result.stdout.split("the R-CONV slides print")
    assert "    = 900\n" in exact
    assert "    = 192\n" in exact
    assert "flagged: the equations may fix the whole input" in exact
    assert "= 24\n" in slides
    assert "= 75\n" in slides
    assert "24 + 75 < 768, so that it calls the layer safe" in slides


@pytest.mark.parametrize("name", PIECEWISE_LINEAR + SMOOTH)
def test_float64_gradients_give_the_input_back(name: str) -> None:
    model, code = audit(str(SAMPLES / f"{name}.onnx"), "--gradient-dtype", "float64")
    evidence = end_to_end(model)
    assert (evidence["status"], evidence["scope"]) == ("confirmed", "end to end")
    assert evidence["mse"] <= 1e-20
    assert evidence["rank"] == 3072
    assert code == 1


@pytest.mark.parametrize("name", PIECEWISE_LINEAR + SMOOTH)
@pytest.mark.parametrize("seed", ["0", "1"])
def test_float32_gradients_give_the_input_back(name: str, seed: str) -> None:
    model, _ = audit(str(SAMPLES / f"{name}.onnx"), "--seed", seed)
    evidence = end_to_end(model)
    assert evidence["status"] == "confirmed"
    assert evidence["gradient_dtype"] == "float32"
    assert evidence["mse"] <= (1e-8 if name in PIECEWISE_LINEAR else 1e-4)


def test_cnn6_d_is_where_the_source_rule_and_the_truth_part() -> None:
    model, _ = audit(str(SAMPLES / "cnn6_d.onnx"))
    (layer,) = [layer for layer in model["layers"] if layer["name"] == "conv2"]
    counts = layer["counts"]
    assert (counts["unknowns"], counts["gradient_constraints"], counts["weight_constraints"]) == (
        3468,
        2160,
        1620,
    )
    assert counts["rank_bound"] == 3188
    assert layer["verdict"] == "underdetermined"
    assert not model["leak_path"]["reaches_input"]
    (stop,) = model["leak_path"]["stopped"]
    assert stop["at"] == "conv2"
    assert "3188" in stop["reason"]
    (finding,) = [f for f in model["findings"] if (f["rule"], f["layer"]) == ("LA001", "conv2")]
    assert finding["severity"] == "note"
    assert "redundant" in finding["downgraded_because"]
    assert finding["confirmation"]["status"] == "not reproduced"
    assert finding["confirmation"]["rank"] == 3188


def test_unread_pixels_are_never_confirmed() -> None:
    model, _ = audit(str(SAMPLES / "lenet_unread.onnx"))
    (layer,) = [layer for layer in model["layers"] if layer["name"] == "conv1"]
    assert layer["counts"]["unread"] == 2304
    assert layer["verdict"] == "underdetermined"
    assert "read by no tap" in layer["note"]
    evidence = [f["confirmation"] for f in model["findings"] if f["layer"] == "conv1"]
    assert evidence
    for one in evidence:
        assert one["status"] == "not reproduced"
        assert "2304" in one["reason"]


def test_too_few_equations_are_underdetermined_and_stop_the_path() -> None:
    model, _ = audit(str(SAMPLES / "lenet_underdetermined.onnx"))
    assert model["layers"][0]["verdict"] == "underdetermined"
    assert model["leak_path"]["stopped"][0]["at"] == "conv1"
    assert not [f for f in model["findings"] if f["rule"] == "LA004"]


def test_two_runs_differ_in_nothing_but_seconds() -> None:
    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k != "seconds"}
        return [timeless(v) for v in value] if isinstance(value, list) else value

    runs = [audit(str(SAMPLES / "lenet_main.onnx"))[0] for _ in range(2)]
    assert json.dumps(timeless(runs[0])) == json.dumps(timeless(runs[1]))
