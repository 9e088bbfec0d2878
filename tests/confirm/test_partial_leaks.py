"""A layer whose equations leave its input open: what an audit says, lists and shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import SAMPLES

pytest.importorskip("torch")

from click.testing import CliRunner

from leakaudit.cli.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """What an audit says, and the folder of its pictures; beside it, what a reader is shown."""
    folder = tmp_path_factory.mktemp("pictures")
    model = str(SAMPLES / "lenet_underdetermined.onnx")
    arguments = ["check", model, "--format", "json", "--save-images", str(folder)]
    arguments += ["-v", "--report", f"table={folder.with_suffix('.txt')}"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1, result.output
    return json.loads(result.stdout), folder


def evidence(report: dict) -> dict:
    (model,) = report["models"]
    (finding,) = [f for f in model["findings"] if f["rule"] == "LA007"]
    return finding["confirmation"]


def test_the_headline_is_the_picture_that_uses_everything_known(run: tuple[dict, Path]) -> None:
    told = evidence(run[0])
    assert (told["status"], told["scope"]) == ("not reproduced", "end to end")
    assert "from the shared gradients alone" in told["reason"]
    assert told["rank"] < told["unknowns"]
    assert told["psnr"] > 22
    assert "partial leak" in told["reason"]
    assert told["predicted_error"] is None
    minimum, prior, everything = told["attempts"][-3:]
    figures = [float(re.findall(r"PSNR ([\d.]+) dB", text)[0]) for text in told["attempts"][-3:]]
    assert minimum.startswith("minimum norm")
    assert "values in [0, 1]" not in prior
    assert "values in [0, 1]" in everything
    assert figures[2] == pytest.approx(told["psnr"], abs=0.06)
    assert figures[2] > figures[0] + 10


def test_its_picture_is_saved_and_is_the_one_measured(run: tuple[dict, Path]) -> None:
    report, folder = run
    (images,) = report["models"][0]["images"]
    names = {Path(images[kind]).name for kind in ("original", "reconstruction", "difference")}
    assert all("-partial-" in name for name in names)
    assert names == {path.name for path in folder.iterdir()}
    original, found = (
        np.asarray(Image.open(images[kind])).astype(float) / 255
        for kind in ("original", "reconstruction")
    )
    error = np.mean((original - found) ** 2)
    assert -10 * np.log10(error) == pytest.approx(evidence(report)["psnr"], abs=0.3)


def test_a_reader_sees_what_was_tried(run: tuple[dict, Path]) -> None:
    _, folder = run
    text = " ".join(folder.with_suffix(".txt").read_text(encoding="utf-8").split())
    assert "partial leak: a picture that fits the equations" in text
    assert "tried: minimum norm: MSE" in text
    assert "tried: total-variation prior, values in [0, 1]: MSE" in text


def test_what_is_confirmed_has_no_partial_leak(tmp_path: Path) -> None:
    model = str(SAMPLES / "lenet_main.onnx")
    arguments = ["check", model, "-v", "--save-images", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert "partial leak" not in result.stdout
    assert "relative error predicted from the condition: " in result.stdout
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]
