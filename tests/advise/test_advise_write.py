"""Advice written as a changed model: it runs, is no longer flagged, and overwrites nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from advise_support import load, run
from click.testing import CliRunner
from places import SAMPLES
from samples import networks

from leakaudit.cli.main import main

WRITTEN = [
    ("lenet_main", "conv4", ()),
    ("cnn6", "conv1", ()),
    ("cnn6_d", "conv6", ()),
    ("lenet_allrelu", "conv2", ()),
    ("tabular_mlp", "fc1", ("--frozen", "fc1.weight")),
]


@pytest.mark.parametrize(("name", "layer", "frozen"), WRITTEN)
def test_written_models_run_and_are_no_longer_flagged(
    tmp_path: Path, name: str, layer: str, frozen: tuple[str, ...]
) -> None:
    source, file = SAMPLES / f"{name}.onnx", tmp_path / "changed.onnx"
    before = source.read_bytes()
    result = run(str(source), "--layer", layer, "--no-confirm", "--write", str(file))
    assert result.exit_code == 1, result.output
    assert str(file) in result.stderr
    assert source.read_bytes() == before
    onnx.checker.check_model(str(file), full_check=True)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    shape = getattr(networks, name)().input_shape
    (output,) = session.run(None, {"input": np.zeros(shape, np.float32)})
    assert output.shape == load(name).tensors["output"].shape
    assert np.isfinite(output).all()

    arguments = ["check", str(file), "--no-confirm", "--format", "json", *frozen]
    (model,) = json.loads(CliRunner().invoke(main, arguments).stdout)["models"]
    assert {entry["name"]: entry["verdict"] for entry in model["layers"]}[layer] == (
        "underdetermined"
    )
    assert not model["leak_path"]["reaches_input"]
    severe = [
        f["rule"]
        for f in model["findings"]
        if f["layer"] == layer and f["severity"] in ("high", "critical")
    ]
    assert severe == []

    old, new = (
        {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(str(f)).graph.initializer}
        for f in (source, file)
    )
    assert old.keys() == new.keys()
    kept = [n for n in old if old[n].shape == new[n].shape]
    assert kept
    assert len(kept) < len(old)
    assert all(np.array_equal(old[n], new[n]) for n in kept)


def test_pooling_is_written_in_front_of_the_head(tmp_path: Path) -> None:
    file = tmp_path / "pooled.onnx"
    source = str(SAMPLES / "lenet_main.onnx")
    assert run(source, "--layer", "fc1", "--no-confirm", "--write", str(file)).exit_code == 1
    nodes = [node.op_type for node in onnx.load(str(file)).graph.node]
    assert nodes[-3:] == ["AveragePool", "Flatten", "Gemm"]
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    session.run(None, {"input": np.zeros((1, 3, 32, 32), np.float32)})
    arguments = ["check", str(file), "--no-confirm", "--format", "json"]
    (model,) = json.loads(CliRunner().invoke(main, arguments).stdout)["models"]
    assert not model["leak_path"]["reaches_input"]


@pytest.mark.parametrize("layer", ["conv", "head", "middle"])
def test_files_that_state_sizes_and_keep_weights_outside_are_written(
    tmp_path: Path, layer: str
) -> None:
    """A Reshape with stated sizes, MatMul + Add for dense layers, external data."""
    source = tmp_path / "source.onnx"
    generator = np.random.default_rng(1)
    stored = {
        "conv.weight": (6, 3, 3, 3),
        "conv.bias": (6,),
        "middle.weight": (384, 24),
        "middle.bias": (24,),
        "head.weight": (24, 10),
        "head.bias": (10,),
    }
    tensors = [
        onnx.numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name)
        for name, shape in stored.items()
    ]
    tensors.append(onnx.numpy_helper.from_array(np.array([1, 384], np.int64), "shape"))
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["input", "conv.weight", "conv.bias"], ["a"], auto_pad="SAME_UPPER"),
        make("LeakyRelu", ["a"], ["b"]),
        make("Reshape", ["b", "shape"], ["c"]),
        make("MatMul", ["c", "middle.weight"], ["d"]),
        make("Add", ["d", "middle.bias"], ["e"]),
        make("LeakyRelu", ["e"], ["f"]),
        make("MatMul", ["f", "head.weight"], ["g"]),
        make("Add", ["g", "head.bias"], ["output"]),
    ]
    info, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "sizes",
        [info("input", kind, (1, 3, 8, 8))],
        [info("output", kind, (1, 10))],
        tensors,
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save_model(
        model, str(source), save_as_external_data=True, location="data.bin", size_threshold=64
    )
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere" / "changed.onnx"
    result = run(str(source), "--layer", layer, "--no-confirm", "--write", str(file))
    if layer == "head":
        assert result.exit_code == 2  # freezing is all that helps, and no file can state it
        assert not file.exists()
        return
    assert result.exit_code == 1, result.output
    onnx.checker.check_model(str(file), full_check=True)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": np.ones((1, 3, 8, 8), np.float32)})
    assert output.shape == (1, 10)
    written = {t.name: t for t in onnx.load(str(file)).graph.initializer}
    assert any(tuple(written[name].dims) != shape for name, shape in stored.items())


@pytest.mark.parametrize("kind", ["original", "file", "dangling link"])
def test_no_file_is_overwritten(tmp_path: Path, kind: str) -> None:
    source, file = tmp_path / "model.onnx", tmp_path / "other.onnx"
    source.write_bytes((SAMPLES / "tabular_mlp.onnx").read_bytes())
    if kind == "file":
        file.write_bytes(b"mine")
    elif kind == "dangling link":
        file.symlink_to(tmp_path / "nowhere.onnx")
    before = {path.name for path in tmp_path.iterdir()}
    target = source if kind == "original" else file
    result = run(str(source), "--no-confirm", "--write", str(target))
    assert result.exit_code == 2
    assert "never overwritten" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == before
    assert source.read_bytes() == (SAMPLES / "tabular_mlp.onnx").read_bytes()
    if kind == "file":
        assert file.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("tabular_mlp.pt2", "--write", "new.onnx"), 2, "ONNX files only"),
        (("tabular_mlp.onnx", "--write", "new.pt2"), 2, ".onnx"),
        (("tabular_mlp.onnx", "--layer", "fc9"), 2, "fc1, fc2"),
        (("tabular_mlp.onnx", "--layer", "fc2", "--write", "new.onnx"), 2, "--frozen"),
        (("absent.onnx",), 3, "no such file"),
        (("pictures",), 2, "folder"),
    ],
)
def test_wrong_usage(
    arguments: tuple[str, ...],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(str(SAMPLES / arguments[0]), *arguments[1:], "--no-confirm")
    assert result.exit_code == code
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def searched(*_arguments: object) -> None:
        pytest.fail("the search has begun")

    monkeypatch.setattr("leakaudit.pipeline.api.search", searched)
    file = tmp_path / "absent" / "new.onnx"
    result = run(str(SAMPLES / "tabular_mlp.onnx"), "--no-confirm", "--write", str(file))
    assert result.exit_code == 2
    assert f"--write {file}: it cannot be written (No such file or directory)" in result.stderr
