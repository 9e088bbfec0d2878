"""The README says what the tool does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from generated_docs import commands
from onnx import helper, numpy_helper
from places import ROOT

from leakaudit.cli.main import main
from leakaudit.frontends.coverage import coverage

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_rules_is_current() -> None:
    listed = re.findall(r"^\| (LA\d{3}) \| (\w+) \| (.+?) \|$", README, flags=re.MULTILINE)
    printed = CliRunner().invoke(main, ["rules"]).stdout
    rows = [re.split(r"  +", line.strip()) for line in printed.splitlines()[2:]]
    assert listed == [(rule, severity, title) for rule, severity, _, title in rows]


def test_the_table_of_operators_is_current() -> None:
    rows = [
        f"| {line.family} | {', '.join(line.onnx) or '-'} | {', '.join(line.aten) or '-'} |"
        for line in coverage()
    ]
    shown = README.split("<!-- coverage -->")[1].split("</details>")[0].strip().splitlines()
    assert shown[2:] == rows


def test_every_command_and_option_shown_exists() -> None:
    shown = set(re.findall(r"^\$ leakaudit (\w+)", README, flags=re.MULTILINE))
    assert shown <= set(main.commands)
    known = {
        option
        for command in commands().values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) - {"--check", "--help"}
    assert shown <= known


def save_open_model(path: Path) -> None:
    """A network whose file leaves batch, height and width open."""
    weights = {"backbone.weight": (8, 3, 3, 3), "head.weight": (10, 8), "head.bias": (10,)}
    draw = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["image", "backbone.weight"], ["features"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], ["logits"], transB=1),
    ]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["B", 3, "H", "W"])
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["B", 10])
    stored = [
        numpy_helper.from_array(draw.uniform(-0.5, 0.5, shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    graph = helper.make_graph(nodes, "open", [image], [logits], stored)
    opset = helper.make_opsetid("", 17)
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)


def test_the_configuration_shown_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the commands shown for a baseline, for models where the configuration expects them."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```toml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    Path("leakaudit.toml").write_text("\n".join(blocks), encoding="utf-8")
    save_open_model(Path("models/vision/open.onnx"))
    commands = re.findall(r"^\$ leakaudit (baseline models.*|check models --.*?) +#", README, re.M)
    assert len(commands) == 3
    for command in commands:
        confirm = ["--no-confirm"] if command.startswith("check") else []
        result = CliRunner().invoke(main, [*command.split(), *confirm])
        assert result.exit_code == 0, result.output


def test_every_file_named_exists() -> None:
    root = ROOT
    for name in re.findall(r"(?:sample_models|rules)/[\w./*-]+", README):
        assert list(root.glob(name.rstrip("."))), name


def test_the_transcript_is_what_the_tool_prints() -> None:
    """Everything but the measured numbers, which differ from machine to machine."""
    block = README.split("<!-- transcript -->")[1].split("```")[1]
    command, shown = block.split("\n", 2)[1:]
    assert command.startswith("$ leakaudit check sample_models/lenet_main.onnx")
    printed = CliRunner().invoke(main, command.split()[2:], catch_exceptions=False).stdout
    layers = [line for line in shown.splitlines() if " -> " in line or "flagged" in line]
    assert layers
    steps = re.findall(r"^ +\d+\. .+$", shown, flags=re.MULTILINE)
    assert len(steps) == 17
    for line in (*layers, *steps):
        assert line in printed
