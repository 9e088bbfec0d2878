"""A layer that reads stored numbers only holds nothing private: listed, not counted, no finding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from leakaudit.advice.search import advise
from leakaudit.cli.main import main
from leakaudit.frontends.aten import module
from leakaudit.frontends.interface import LoadOptions
from leakaudit.report import REPORTERS
from leakaudit.report.json_report import schema

pytest.importorskip("torch")

SOURCE = """
import torch
from torch import nn

class Stored(nn.Module):
    "`side` and `filters` read buffers; `head` reads what follows from x."
    example_inputs = (torch.zeros(1, 6),)

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.ones(1, 8))
        self.register_buffer("image", torch.ones(1, 2, 4, 4))
        self.side = nn.Linear(8, 6)
        self.filters = nn.Conv2d(2, 6, 4)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        stored = self.side(self.table) + self.filters(self.image).flatten(1)
        return self.head(torch.tanh(x) * stored)

class LowRank(nn.Module):
    "The weight of a layer is a stored one plus a product of two trained ones."
    example_inputs = (torch.zeros(1, 20),)

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(30, 20), requires_grad=False)
        self.a = nn.Parameter(torch.ones(4, 20))
        self.b = nn.Parameter(torch.ones(30, 4))
        self.head = nn.Linear(30, 3)

    def forward(self, x):
        product = self.b @ self.a
        return self.head(torch.tanh(nn.functional.linear(x, self.w + product)))
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "stored.py"
    path.write_text(SOURCE)
    return str(path)


@pytest.mark.parametrize(
    ("name", "stored"), [("Stored", {"side", "filters"}), ("LowRank", {"matmul"})]
)
def test_a_layer_on_stored_numbers_is_listed_and_not_counted(
    source: str, name: str, stored: set[str]
) -> None:
    arguments = ["check", f"{source}:{name}", "--no-confirm", "--format", "json"]
    document = json.loads(CliRunner().invoke(main, arguments).stdout)
    assert list(Draft202012Validator(schema()).iter_errors(document)) == []
    (model,) = document["models"]
    layers = {layer["name"]: layer for layer in model["layers"]}
    assert set(layers) == {*stored, "head"}
    for layer in stored:
        assert layers[layer]["counts"] is None
        assert layers[layer]["verdict"] == "undetermined"
        assert "reads stored numbers only" in layers[layer]["note"]
    assert layers["head"]["verdict"] == "flagged"
    assert ("LA003", "head") in {(f["rule"], f["layer"]) for f in model["findings"]}
    assert not stored & {finding["layer"] for finding in model["findings"]}
    assert model["complete"]


@pytest.mark.parametrize("report", sorted(REPORTERS))
def test_every_report_takes_a_layer_without_counts(source: str, report: str) -> None:
    arguments = ["check", f"{source}:Stored", "--no-confirm", "--format", report]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1, done.output
    assert "8 inputs" not in " ".join(done.stdout.split())  # of `side`, in the words of LA003


def test_explain_says_why_there_is_nothing_to_count(source: str) -> None:
    told = CliRunner().invoke(main, ["explain", f"{source}:Stored", "--layer", "side"])
    assert told.exit_code == 0, told.output
    assert "reads stored numbers only" in told.stdout
    assert "flagged" not in told.stdout


def test_no_advice_is_given_for_it(source: str) -> None:
    graph = module.load(f"{source}:Stored", LoadOptions())
    assert [layer.layer for layer in advise(graph, "cross-entropy").layers] == ["head"]


def test_a_weight_that_is_computed_is_not_called_an_activation(source: str) -> None:
    arguments = ["check", f"{source}:LowRank", "--no-confirm", "--format", "json"]
    (model,) = json.loads(CliRunner().invoke(main, arguments).stdout)["models"]
    reasons = [stop["reason"] for stop in model["leak_path"]["stopped"]]
    assert any("one factor is computed from stored numbers alone" in reason for reason in reasons)
    assert not any("product of two activations" in reason for reason in reasons)
