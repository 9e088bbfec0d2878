"""The baseline: what retraining, widening and mending a network do to the findings of a gate.

The networks are exported anew by PyTorch's own exporter, as a user's are.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator
from places import ROOT, SAMPLES
from torch import nn

from leakaudit.cli.main import main
from leakaudit.report.json_report import schema

FILTERS = (12, 16, 12, 3)  # lenet_main
STRIDES = (2, 2, 1, 1)
BASELINE = "leakaudit-baseline.json"


def lenet(filters: Sequence[int] = FILTERS, classes: int = 10, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Sequential()
    channels = 3
    for number, (width, stride) in enumerate(zip(filters, STRIDES, strict=True), start=1):
        layers.add_module(f"conv{number}", nn.Conv2d(channels, width, 5, stride, 2))
        layers.add_module(f"act{number}", nn.LeakyReLU(0.2))
        channels = width
    layers.add_module("flatten", nn.Flatten())
    layers.add_module("fc1", nn.Linear(channels * 64, classes))
    return layers


def separable(width: int, head: int) -> nn.Module:
    """A depthwise convolution takes its width over from the one before it."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, width, 3, 1, 1, groups=width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, head, 1),
        nn.Flatten(),
        nn.Linear(head * 256, 10),
    )


def export(module: nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(1, 3, 32, 32)
    module = module.eval()
    torch.onnx.export(module, (example,), path, dynamo=True, verbose=False, external_data=False)


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def check(*arguments: str | Path, confirm: bool = False) -> tuple[int, dict]:
    static = [] if confirm else ["--no-confirm"]
    result = run("check", *arguments, *static, "--format", "json", "--isolated")
    document = json.loads(result.stdout)
    assert list(Draft202012Validator(schema()).iter_errors(document)) == []
    return result.exit_code, document


def new(document: dict) -> list[tuple[str, str | None]]:
    return [(f["rule"], f["layer"]) for m in document["models"] for f in m["findings"]]


def notes(document: dict) -> list[str]:
    return [note for model in document["models"] for note in model["notes"]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and the baseline of its findings."""
    folder = tmp_path_factory.mktemp("gate")
    model, baseline = folder / "models" / "net.onnx", folder / BASELINE
    export(lenet(), model)
    result = run("baseline", model, "-o", baseline, "--isolated")
    assert (result.exit_code, result.stdout) == (0, "")
    entries = json.loads(baseline.read_text())["findings"]
    assert {entry["layer"] for entry in entries} == {
        "conv1",
        "conv2",
        "conv3",
        "conv4",
        "fc1",
        None,
    }
    return folder


@pytest.fixture
def gate(original: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A model and the baseline of its findings: all four convolutions, the head, the model."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return tmp_path / "models" / "net.onnx", tmp_path / BASELINE


def test_a_model_at_baseline_has_no_new_finding(gate: tuple[Path, Path]) -> None:
    model, baseline = gate
    assert run("check", model, "--no-confirm", "--isolated").exit_code == 1
    code, document = check(model, "--baseline", baseline)
    assert (code, new(document)) == (0, [])
    known = document["models"][0]["known"]
    assert len(known) == len(json.loads(baseline.read_text())["findings"])
    assert document["summary"]["known"] == len(known)
    table = run("check", model, "--no-confirm", "--isolated", "--baseline", baseline).stdout
    assert f"no new findings; {len(known)} known from the baseline" in table
    assert f"No new findings: {len(known)} known from the baseline." in table


def test_a_retrained_model_has_no_new_finding(gate: tuple[Path, Path]) -> None:
    model, baseline = gate
    before = model.read_bytes()
    export(lenet(seed=1), model)
    assert model.read_bytes() != before
    result = run("check", model, "--no-confirm", "--isolated", "--baseline", baseline)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "no new findings" in result.stdout


@pytest.mark.parametrize("layer", [1, 2, 3, 4])
def test_a_widened_convolution_is_exactly_one_new_finding(
    gate: tuple[Path, Path], layer: int
) -> None:
    """Two rules hold for most of them, and the layers behind them change their input."""
    model, baseline = gate
    wider = [width + 4 * (number == layer) for number, width in enumerate(FILTERS, start=1)]
    export(lenet(wider, seed=layer), model)
    code, document = check(model, "--baseline", baseline)
    assert code == 1
    ((_rule, found),) = new(document)
    assert found == f"conv{layer}"
    assert any(f"conv{layer} has changed" in note for note in notes(document))


def test_a_wider_head_is_exactly_one_new_finding(gate: tuple[Path, Path]) -> None:
    model, baseline = gate
    export(lenet(classes=12), model)
    code, document = check(model, "--baseline", baseline)
    assert (code, new(document)) == (1, [("LA003", "fc1")])


def test_a_depthwise_convolution_only_takes_a_width_over(tmp_path: Path) -> None:
    model, baseline = tmp_path / "net.onnx", tmp_path / "known.json"
    export(separable(12, head=32), model)
    assert run("baseline", model, "-o", baseline, "--isolated").exit_code == 0
    known = json.loads(baseline.read_text())["findings"]
    assert {entry["layer"] for entry in known} == {"0", "2", "4", "6", None}
    export(separable(16, head=32), model)
    _, document = check(model, "--baseline", baseline)
    ((_rule, layer),) = new(document)
    assert layer == "0"


def test_what_is_left_of_a_worse_finding_is_not_new(tmp_path: Path) -> None:
    """A wider layer gives the one behind it more unknowns: it leaks less than it did."""
    model, baseline = tmp_path / "net.onnx", tmp_path / "known.json"
    export(separable(8, head=8), model)
    run("baseline", model, "-o", baseline, "--isolated")
    before = {(e["rule"], e["layer"]) for e in json.loads(baseline.read_text())["findings"]}
    assert ("LA001", "4") in before
    assert ("LA007", "4") not in before
    export(separable(12, head=8), model)
    _, document = check(model, "--baseline", baseline)
    assert "4" not in [layer for _rule, layer in new(document)]
    assert ("LA007", "4") in {(f["rule"], f["layer"]) for f in document["models"][0]["known"]}
    assert "LA007 on layer 4 is what is left of LA001: not new" in notes(document)


def test_confirmation_changes_no_fingerprint(gate: tuple[Path, Path]) -> None:
    model, baseline = gate
    code, document = check(model, "--baseline", baseline, confirm=True)
    assert (code, new(document)) == (0, [])
    evidence = [f["confirmation"] for f in document["models"][0]["known"]]
    assert any(given and given["status"] == "confirmed" for given in evidence)


def test_a_changed_layer_hides_nothing_more_severe(gate: tuple[Path, Path]) -> None:
    """Of the findings of a changed layer the most severe is the one that stays."""
    model, baseline = gate
    export(lenet((12, 20, 12, 3)), model)
    _, document = check(model, "--baseline", baseline)
    rank = ["note", "low", "medium", "high", "critical"].index
    (kept,) = document["models"][0]["findings"]
    hidden = [f for f in document["models"][0]["known"] if f["layer"] == "conv2"]
    assert hidden
    assert all(rank(kept["severity"]) >= rank(f["severity"]) for f in hidden)


def test_a_rule_that_a_layer_newly_meets_is_new_whatever_else_changed(tmp_path: Path) -> None:
    model, baseline = tmp_path / "net.onnx", tmp_path / "known.json"
    export(lenet((4, 16, 12, 3)), model)  # too narrow: underdetermined
    run("baseline", model, "-o", baseline, "--isolated")
    before = {(e["rule"], e["layer"]) for e in json.loads(baseline.read_text())["findings"]}
    assert ("LA001", "conv1") not in before
    export(lenet((16, 16, 12, 3)), model)
    code, document = check(model, "--baseline", baseline)
    assert code == 1
    assert ("LA001", "conv1") in new(document)
    assert ("LA004", None) in new(document)  # and now the leak path reaches the input


def test_fixed_findings_are_named_and_pruned(gate: tuple[Path, Path]) -> None:
    model, baseline = gate
    export(lenet((4, 16, 12, 3)), model)
    result = run(
        "check", model, "--no-confirm", "--isolated", "--baseline", baseline, "--format", "json"
    )
    fixed = json.loads(result.stdout)["baseline"]["fixed"]
    assert ("LA001", "conv1") in {(entry["rule"], entry["layer"]) for entry in fixed}
    (line,) = result.stderr.splitlines()
    assert "fixed since the baseline" in line
    assert "LA001 on layer conv1 of models/net.onnx" in line
    assert "--update" in line
    updated = run("baseline", model, "-o", baseline, "--update", "--isolated")
    assert updated.exit_code == 0
    assert "removed" in updated.stderr
    again = run("check", model, "--no-confirm", "--isolated", "--baseline", baseline)
    assert (again.exit_code, again.stderr) == (0, "")


def test_only_what_was_audited_can_be_fixed(gate: tuple[Path, Path]) -> None:
    model, baseline = gate
    other = model.with_name("other.onnx")
    shutil.copy(model, other)
    run("baseline", model, other, "-o", baseline, "--update", "--isolated")
    result = run("check", other, "--no-confirm", "--isolated", "--baseline", baseline)
    assert (result.exit_code, result.stderr) == (0, "")
    selected = ("check", other, "--no-confirm", "--isolated", "--select", "LA003")
    assert run(*selected, "--baseline", baseline).stderr == ""


def test_the_same_network_elsewhere_is_not_known(gate: tuple[Path, Path]) -> None:
    model, baseline = gate
    copy = model.with_name("copy.onnx")
    shutil.copy(model, copy)
    code, document = check(model, copy, "--baseline", baseline)
    assert code == 1
    assert [len(m["findings"]) > 0 for m in document["models"]] == [False, True]


def test_targets_are_seen_from_the_baseline(
    gate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, baseline = gate
    monkeypatch.chdir(model.parent)
    relative = os.path.relpath(baseline)
    assert check("net.onnx", "--baseline", relative)[0] == 0
    assert check(tmp_path / "models" / ".." / "models", "--baseline", relative)[0] == 0
    names = {entry["target"] for entry in json.loads(baseline.read_text())["findings"]}
    assert names == {"models/net.onnx"}
    link = tmp_path.with_name(f"{tmp_path.name}-link")
    link.symlink_to(tmp_path)
    assert check(link / "models" / "net.onnx", "--baseline", baseline)[0] == 0
    # The whole checkout elsewhere: another machine.
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copytree(tmp_path / "models", moved / "models")
    shutil.copy(baseline, moved / "known.json")
    monkeypatch.chdir(moved)
    assert check("models/net.onnx", "--baseline", "known.json")[0] == 0


def test_the_file_is_the_same_every_time_and_names_no_machine(gate: tuple[Path, Path]) -> None:
    model, baseline = gate
    first = baseline.read_bytes()
    export(lenet(seed=5), model)
    run("baseline", model.parent, model, "-o", baseline, "--update", "--isolated")
    assert baseline.read_bytes() == first
    text = first.decode()
    assert text.endswith("}\n")
    assert str(model.parent) not in text
    assert list(json.loads(text)["findings"][0]) == [
        "target",
        "rule",
        "layer",
        "severity",
        "fingerprint",
    ]


def test_a_baseline_is_not_overwritten_unasked(gate: tuple[Path, Path]) -> None:
    model, baseline = gate
    before = baseline.read_bytes()
    result = run("baseline", model, "-o", baseline, "--isolated")
    assert result.exit_code == 2
    assert "--update" in result.stderr
    assert baseline.read_bytes() == before


def test_nothing_is_written_where_a_target_cannot_be_audited(tmp_path: Path) -> None:
    file = tmp_path / "known.json"
    result = run("baseline", tmp_path / "absent.onnx", SAMPLES / "lenet.onnx", "-o", file)
    assert result.exit_code == 3
    assert "absent.onnx" in result.stderr
    assert not file.exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "no baseline"),
        ('{"findings": []}', "no baseline"),
        ('{"leakaudit_baseline": 99, "findings": []}', "version 99"),
        ('{"leakaudit_baseline": 1}', "needs target, rule, layer, severity, fingerprint"),
        ('{"leakaudit_baseline": 1, "findings": [{"target": 1}]}', "needs target"),
        ('{"leakaudit_baseline": 1, "findings": ["x"]}', "needs target"),
    ],
)
def test_a_broken_baseline_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "known.json"
    file.write_text(text)
    result = run("check", SAMPLES / "lenet.onnx", "--no-confirm", "--baseline", file)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert str(file) in line
    assert reason in line


def test_an_absent_baseline_says_how_to_write_one(tmp_path: Path) -> None:
    result = run(
        "check", SAMPLES / "lenet.onnx", "--no-confirm", "--baseline", tmp_path / "no.json"
    )
    assert result.exit_code == 2
    assert "leakaudit baseline" in result.stderr


def test_sarif_keeps_known_findings_with_their_state(gate: tuple[Path, Path]) -> None:
    """Leaving them out would close alerts that are open."""
    model, baseline = gate
    export(lenet((12, 20, 12, 3)), model)
    result = run(
        "check", model, "--no-confirm", "--isolated", "--baseline", baseline, "--format", "sarif"
    )
    results = json.loads(result.stdout)["runs"][0]["results"]
    official = json.loads((ROOT / "tests/report/schemas/sarif-2.1.0.json").read_text())
    assert "baselineState" in json.dumps(official)
    states = [r["baselineState"] for r in results]
    assert states.count("new") == 1
    assert set(states) == {"new", "unchanged"}
    assert len(states) == len(json.loads(baseline.read_text())["findings"])
