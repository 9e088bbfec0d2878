"""Files that are not models, models that lie, sizes that do not fit: one clear line each."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from leakaudit import operators as ops
from leakaudit.errors import AuditError
from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.onnx.reader import load

FLOAT = TensorProto.FLOAT
WEIGHT = np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3)


def conv_model(
    shape: list[int | str | None] | None = None, opset: int = 17, name: str = "w"
) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", name], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, shape or [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(WEIGHT, name)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def refusal(path: Path, options: LoadOptions | None = None) -> AuditError:
    """The error that `load` raises; it names the path and fits on one line."""
    with pytest.raises(AuditError) as caught:
        load(str(path), options or LoadOptions())
    error = caught.value
    assert error.target == str(path)
    assert str(error).startswith(f"{path}: ")
    assert "\n" not in str(error)
    assert error.reason
    assert error.remedy
    return error


def saved(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


# --- files --------------------------------------------------------------------------------------


def lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")


def zip_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.json", "{}")


FILES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing": (lambda path: None, "no such file", "path"),
    "folder": (lambda path: path.mkdir(), "folder", ".onnx"),
    "empty": (lambda path: path.touch(), "empty", "export"),
    "lfs": (lfs_pointer, "Git LFS pointer", "git lfs pull"),
    "zip": (zip_archive, "zip archive", ".pt2"),
    "text": (lambda path: path.write_text("<html>404</html>"), "not an ONNX", "download"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 8), "not an ONNX", "export"),
    "no graph": (
        lambda path: path.write_bytes(onnx.ModelProto(ir_version=8).SerializeToString()),
        "no network",
        "export",
    ),
    "fifo": (os.mkfifo, "not a regular file", ".onnx"),
}


@pytest.mark.parametrize("name", FILES)
def test_not_a_model(name: str, tmp_path: Path) -> None:
    make, reason, remedy = FILES[name]
    path = tmp_path / "net.onnx"
    make(path)
    error = refusal(path)
    assert reason in error.reason
    assert remedy in error.remedy


def test_more_than_a_protobuf_can_hold(tmp_path: Path) -> None:
    path = saved(tmp_path, conv_model())
    with path.open("r+b") as handle:
        handle.truncate(2**31)  # a hole: takes no space
    assert "external_data" in refusal(path).remedy


def test_no_permission(tmp_path: Path) -> None:
    path = saved(tmp_path, conv_model())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads every file")
    assert "Permission denied" in refusal(path).reason


def test_every_truncation_is_refused_or_loads(tmp_path: Path) -> None:
    data = conv_model().SerializeToString()
    path = tmp_path / "net.onnx"
    refused = 0
    for length in range(1, len(data)):
        path.write_bytes(data[:length])
        try:
            graph = load(str(path), LoadOptions())
        except AuditError:
            refused += 1
        else:  # only the end of the file is gone, such as the producer's name
            assert graph.inputs == ("x",)
    assert refused > 0.9 * len(data)


# --- models -------------------------------------------------------------------------------------


def test_old_opset_names_the_converter(tmp_path: Path) -> None:
    error = refusal(saved(tmp_path, conv_model(opset=6)))
    assert "opset 6" in error.reason
    assert "onnx.version_converter" in error.remedy
    assert load(str(saved(tmp_path, conv_model(opset=7))), LoadOptions()).nodes


def test_no_opset_means_opset_1(tmp_path: Path) -> None:
    model = conv_model()
    del model.opset_import[:]
    assert "opset 1" in refusal(saved(tmp_path, model)).reason


def without_inputs(model: onnx.ModelProto) -> None:
    del model.graph.input[:]


def undefined_value(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[1] = "nowhere\n\x1b[31m"


def cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "z"
    model.graph.node.append(helper.make_node("Relu", ["y"], ["z"]))


def twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))


def negative_size(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -2


def sequence_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.CopyFrom(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [1]))
    )


def constant_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "w"


def redefined_operator(model: onnx.ModelProto) -> None:
    relu = helper.make_node("Relu", ["a"], ["b"])
    model.functions.append(
        helper.make_function("", "Conv", ["a"], ["b"], [relu], [helper.make_opsetid("", 17)])
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_inputs, "no input"),
        (undefined_value, r"'nowhere\n\x1b[31m'"),
        (cycle, "not computed yet"),
        (twice, "computed twice"),
        (negative_size, "negative size"),
        (sequence_input, "not a tensor"),
        (constant_output, "no output depends"),
        (redefined_operator, "redefines"),
    ],
)
def test_broken_models(
    change: Callable[[onnx.ModelProto], None], reason: str, tmp_path: Path
) -> None:
    model = conv_model()
    change(model)
    assert reason in refusal(saved(tmp_path, model)).reason


@pytest.mark.parametrize("inputs", [["x"], ["x", "gone"], [], ["x", "w", "", "", ""]])
@pytest.mark.parametrize("op", ["Conv", "Gemm", "MatMul", "PRelu", "Relu", "Reshape", "Shape"])
def test_wrong_numbers_of_inputs_and_outputs_never_crash(
    op: str, inputs: list[str], tmp_path: Path
) -> None:
    for outputs in ([], [""], ["a"], ["a", "b"]):
        model = conv_model()
        model.graph.node.append(helper.make_node(op, inputs, outputs))
        path = saved(tmp_path, model)
        if "gone" in inputs:
            assert "'gone'" in refusal(path).reason
        else:
            graph = load(str(path), LoadOptions())
            assert isinstance(graph.producers["y"].op, ops.Conv)
            assert all(name in graph.tensors for node in graph.nodes for name in node.outputs)


def test_control_characters_in_names(tmp_path: Path) -> None:
    graph = load(str(saved(tmp_path, conv_model(name="\x1b[2J\r.weight"))), LoadOptions())
    assert graph.nodes[0].name == "\x1b[2J\r"


def test_a_huge_computed_weight_is_not_computed(tmp_path: Path) -> None:
    model = conv_model(["n", 2**20, 3, 3], name="unused")
    del model.graph.initializer[:]
    size = numpy_helper.from_array(np.array([2**20, 2**20, 3, 3]), "size")
    model.graph.initializer.append(size)
    model.graph.node[0].input[1] = "w"
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["size"], ["w"]))
    graph = load(str(saved(tmp_path, model)), LoadOptions())
    assert isinstance(graph.nodes[0].op, ops.Conv)
    with pytest.raises(AuditError, match="elements"):
        graph.weights.load("w")


# --- sizes of the inputs ------------------------------------------------------------------------


def test_batch_is_one_unless_asked_for(tmp_path: Path) -> None:
    for batch in ("n", None, 0, -1):
        path = saved(tmp_path, conv_model([batch, 3, 8, 8]))
        assert load(str(path), LoadOptions()).tensors["y"].shape == (1, 2, 6, 6)
        asked = load(str(path), LoadOptions(batch_size=5))
        assert asked.tensors["x"].shape == (5, 3, 8, 8)
        assert asked.tensors["y"].shape == (5, 2, 6, 6)


def test_fixed_batch_stays(tmp_path: Path) -> None:
    path = saved(tmp_path, conv_model([4, 3, 8, 8]))
    assert load(str(path), LoadOptions()).tensors["y"].shape == (4, 2, 6, 6)
    assert load(str(path), LoadOptions(batch_size=4)).tensors["y"].shape == (4, 2, 6, 6)
    error = refusal(path, LoadOptions(batch_size=2))
    assert "batch of 4" in error.reason
    assert "open batch dimension" in error.remedy


def test_open_sizes_are_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path, conv_model(["n", 3, "height", None]))
    error = refusal(path)
    assert "'x'" in error.reason
    assert "axis 2 ('height'), axis 3" in error.reason
    assert "--input-shape 1,3,?,?" in error.remedy
    for key in ("", "x"):
        graph = load(str(path), LoadOptions({key: (1, 3, 9, 7)}))
        assert graph.tensors["y"].shape == (1, 2, 7, 5)


def test_input_without_shape(tmp_path: Path) -> None:
    model = conv_model()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    path = saved(tmp_path, model)
    assert "--input-shape" in refusal(path).remedy
    graph = load(str(path), LoadOptions({"": (2, 3, 5, 5)}))
    assert graph.tensors["y"].shape == (2, 2, 3, 3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (LoadOptions({"": (1, 3, 8)}), "does not fit"),
        (LoadOptions({"": (1, 1, 8, 8)}), "does not fit"),
        (LoadOptions({"": (1, 3, 8, 0)}), "below 1"),
        (LoadOptions({"image": (1, 3, 8, 8)}), "no input named 'image'"),
        (LoadOptions({"": (2, 3, 8, 8)}, batch_size=3), "batch of 2"),
        (LoadOptions({"": (1, 3, 8, 9)}), "'side'"),
    ],
)
def test_shapes_that_do_not_fit(options: LoadOptions, reason: str, tmp_path: Path) -> None:
    path = saved(tmp_path, conv_model(["n", 3, "side", "side"]))
    error = refusal(path, options)
    assert reason in error.reason
    assert "input" in error.remedy or "--input-shape" in error.remedy


def test_shape_without_a_name_for_two_inputs(tmp_path: Path) -> None:
    model = conv_model()
    model.graph.input.append(helper.make_tensor_value_info("mask", FLOAT, [1]))
    error = refusal(saved(tmp_path, model), LoadOptions({"": (1, 3, 8, 8)}))
    assert "2 inputs" in error.reason
    assert "'x', 'mask'" in error.remedy


# --- external data ------------------------------------------------------------------------------


def external(folder: Path, location: str, **entries: int) -> Path:
    model = conv_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return saved(folder, model)


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(b"\0" * 64 + WEIGHT.tobytes() + b"\1")
    path = external(tmp_path, "data/w.bin", offset=64, length=WEIGHT.nbytes)
    weights = load(str(path), LoadOptions()).weights
    np.testing.assert_array_equal(weights.load("w"), WEIGHT)


@pytest.mark.parametrize("kind", ["parent", "absolute", "link", "link to folder", "backslash", ""])
def test_external_data_outside_the_folder(kind: str, tmp_path: Path) -> None:
    folder, outside = tmp_path / "model", tmp_path / "secret.bin"
    folder.mkdir()
    outside.write_bytes(WEIGHT.tobytes())
    (folder / "link.bin").symlink_to(outside)
    (folder / "up").symlink_to(tmp_path)
    location = {
        "parent": "../secret.bin",
        "absolute": str(outside),
        "link": "link.bin",
        "link to folder": "up/secret.bin",
        "backslash": "..\\secret.bin",
        "": "",
    }[kind]
    assert "outside the model's folder" in refusal(external(folder, location)).reason


@pytest.mark.parametrize(
    ("content", "entries", "reason"),
    [
        (None, {}, "missing"),
        (b"short", {}, "too short"),
        (WEIGHT.tobytes(), {"offset": 4}, "too short"),
        (WEIGHT.tobytes(), {"length": 8}, "do not match"),
        (WEIGHT.tobytes(), {"offset": -4}, "do not match"),
    ],
)
def test_external_data_that_do_not_fit(
    content: bytes | None, entries: dict[str, int], reason: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "w.bin").write_bytes(content)
    graph = load(str(external(tmp_path, "w.bin", **entries)), LoadOptions())
    with pytest.raises(AuditError, match=reason):
        graph.weights.load("w")


def test_inline_data_that_do_not_fit(tmp_path: Path) -> None:
    model = conv_model()
    model.graph.initializer[0].raw_data = b"1234"
    assert "'w' do not match" in refusal(saved(tmp_path, model)).reason
    graph = load(str(saved(tmp_path, conv_model())), LoadOptions())
    with pytest.raises(AuditError, match="holds no numbers"):
        graph.weights.load("nothing")


def test_more_elements_than_there_is_memory(tmp_path: Path) -> None:
    """A few bytes of a file can ask for any size."""
    model = conv_model()
    model.graph.initializer.append(
        numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 2**30, 2**30]), "p")
    )
    model.graph.node.append(helper.make_node("Pad", ["y", "p"], ["z"]))
    model.graph.output[0].name = "z"
    error = refusal(saved(tmp_path, model))
    assert "the number of elements of 'z'" in error.reason
    assert "--limit elements=" in error.remedy
