"""The ONNX frontend: layers and their names, parameters, folding, sizes, what is not understood."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx_reference import FLOAT, assert_like_onnxruntime, model, node, numbers, read
from torch import nn

from leakaudit import operators as ops
from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.onnx.reader import load

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=2, padding=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(6, 4, 3, groups=2, dilation=2, padding="same"),
            nn.PReLU(4),
        )
        self.drop = nn.Dropout()
        self.fc = nn.Linear(4 * 8 * 8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.drop(self.features(x))
        return torch.sigmoid(self.fc(y.reshape(y.shape[0], -1)))


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(torch.tanh(self.up(x)))
        return y


def export(module: nn.Module, example: torch.Tensor, path: Path, **options: Any) -> None:
    torch.onnx.export(
        module.eval(), (example,), path, dynamo=True, verbose=False, optimize=True, **options
    )


def test_torch_export_open_batch(tmp_path: Path) -> None:
    path = tmp_path / "lenet.onnx"
    shapes = {"x": {0: torch.export.Dim("batch")}}
    export(Net(), torch.zeros(2, 3, 16, 16), path, dynamic_shapes=shapes)
    for batch in (None, 3):
        graph = load(str(path), LoadOptions(batch_size=batch))
        assert graph.tensors[graph.inputs[0]].shape == (batch or 1, 3, 16, 16)
        assert_like_onnxruntime(onnx.load(path), graph)
    layers = {entry.name: entry.op for entry in graph.nodes}
    assert layers["features.0"] == ops.Conv((5, 5), (2, 2), (2, 2), (2, 2), (1, 1), 1)
    assert layers["features.2"] == ops.Conv((3, 3), (1, 1), (2, 2), (2, 2), (2, 2), 2)
    assert layers["fc"] == ops.Linear(256, 10)
    assert (graph.name, graph.format) == ("lenet", "onnx")
    assert {"features.0.bias", "features.2.weight", "fc.weight"} <= set(graph.parameters)
    assert all(p.trainable and p.trainable_assumed for p in graph.parameters.values())


def test_torch_export_external_data_and_weights(tmp_path: Path) -> None:
    module, path = Tokens(), tmp_path / "tokens.onnx"
    export(module, torch.zeros(1, 5, 6), path, external_data=True)
    proto = onnx.load(path)
    onnx.save_model(proto, path, save_as_external_data=True, size_threshold=0, location="w.data")
    graph = load(str(path), LoadOptions())
    assert_like_onnxruntime(onnx.load(path), graph)
    linears = [entry for entry in graph.nodes if isinstance(entry.op, ops.Linear)]
    assert len(linears) == 2
    up, down = (graph.weights.load(entry.parameter("weight") or "") for entry in linears)
    assert linears[0].name == "up"  # its weight lost its name to the transposition
    assert linears[0].op.transposed  # type: ignore[attr-defined]
    np.testing.assert_array_equal(up, module.up.weight.detach().numpy().T)
    np.testing.assert_array_equal(down, module.down.weight.detach().numpy().T)
    bias = graph.weights.load(linears[0].parameter("bias") or "")
    np.testing.assert_array_equal(bias, module.up.bias.detach().numpy())
    assert linears[1].parameter("bias") is None


@pytest.mark.parametrize("shape", [(4,), (1, 4), (1, 1, 4)])
@pytest.mark.parametrize("reverse", [False, True])
def test_matmul_and_add_become_one_layer(
    shape: tuple[int, ...], reverse: bool, tmp_path: Path
) -> None:
    operands = ["b", "m"] if reverse else ["m", "b"]
    proto = model(
        [
            node("MatMul", ["x", "w"], "m", "fc"),
            node("Add", operands, "s"),
            node("Relu", ["s"], "y"),
        ],
        {"w": numbers(6, 4), "b": numbers(*shape)},
        {"x": [2, 5, 6]},
    )
    graph = read(proto, tmp_path)
    assert [type(entry.op) for entry in graph.nodes] == [ops.Linear, ops.Relu]
    assert graph.nodes[0].name == "fc"
    assert graph.nodes[0].outputs == ("s",)
    assert "m" not in graph.tensors
    assert graph.parameters["b"].shape == (4,)
    assert_like_onnxruntime(proto, graph)


def test_matmul_output_with_another_use_stays(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], "m"), node("Add", ["m", "b"], "y")]
    inits = {"w": numbers(6, 4), "b": numbers(4)}
    for more, outputs in [([], ["y", "m"]), ([node("Relu", ["m"], "z")], ["y", "z"])]:
        graph = read(model(nodes + more, inits, {"x": [2, 6]}, outputs), tmp_path)
        assert graph.producers["m"].op == ops.Linear(6, 4, transposed=True)
        assert graph.producers["m"].parameter("bias") is None
        assert graph.producers["y"].inputs == ("m", "b")


@pytest.mark.parametrize("shape", [(5, 4), (1,), (2, 1, 4)])
def test_matmul_keeps_apart_an_added_table(shape: tuple[int, ...], tmp_path: Path) -> None:
    proto = model(
        [node("MatMul", ["x", "w"], "m"), node("Add", ["m", "b"], "y")],
        {"w": numbers(6, 4), "b": numbers(*shape)},
        {"x": [2, 5, 6]},
    )
    graph = read(proto, tmp_path)
    assert graph.producers["m"].parameter("bias") is None
    assert graph.tensors["y"].shape == (2, 5, 4)


def test_weights_of_constant_nodes_are_trained_and_other_constants_are_not(tmp_path: Path) -> None:
    weight, bias, table = numbers(4, 3, 3, 3), numbers(4), numbers(1, 4, 6, 6)
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
        for name, array in {"w": weight, "b": bias, "t": table}.items()
    ]
    nodes = [*constants, node("Conv", ["x", "w", "b"], "c"), node("Mul", ["c", "t"], "y")]
    proto = model(nodes, {}, {"x": [1, 3, 8, 8]})
    graph = read(proto, tmp_path)
    assert {name: p.trainable for name, p in graph.parameters.items()} == {
        "w": True,
        "b": True,
        "t": False,
    }
    np.testing.assert_array_equal(graph.weights.load("w"), weight)
    np.testing.assert_array_equal(graph.weights.load("b"), bias)


def test_frozen_patterns_and_integer_initializers(tmp_path: Path) -> None:
    proto = model(
        [
            node("Conv", ["x", "body.0.weight"], "c"),
            node("Reshape", ["c", "shape"], "f"),
            node("Gemm", ["f", "head.weight"], "y", transB=1),
        ],
        {
            "body.0.weight": numbers(2, 3, 3, 3),
            "shape": np.array([1, -1]),
            "head.weight": numbers(5, 72),
        },
        {"x": [1, 3, 8, 8]},
    )
    graph = read(proto, tmp_path, LoadOptions(frozen=("body.*",)))
    assert {name: p.trainable for name, p in graph.parameters.items()} == {
        "body.0.weight": False,
        "head.weight": True,
    }
    assert [entry.name for entry in graph.nodes] == ["body.0", "Reshape_1", "head"]


def test_inputs_that_are_initializers_are_parameters(tmp_path: Path) -> None:
    proto = model(
        [node("Conv", ["x", "w"], "y")],
        {"w": numbers(2, 3, 3, 3)},
        {"w": [2, 3, 3, 3], "x": [1, 3, 8, 8]},
        opset=8,
        ir_version=3,
    )
    graph = read(proto, tmp_path)
    assert graph.inputs == ("x",)
    assert graph.nodes[0].parameter("weight") == "w"


def test_shape_arithmetic_is_folded(tmp_path: Path) -> None:
    """What older PyTorch exporters write for x.view(x.size(0), -1), and an Upsample-like size."""
    nodes = [
        node("Conv", ["x", "w"], "c"),
        node("Shape", ["c"], "s"),
        node("Gather", ["s", "zero"], "n", axis=0),
        node("Unsqueeze", ["n", "axes"], "u"),
        node("Concat", ["u", "rest"], "target", axis=0),
        node("Reshape", ["c", "target"], "f"),
        node("Gemm", ["f", "v"], "y"),
    ]
    inits = {
        "w": numbers(2, 3, 3, 3),
        "zero": np.array(0),
        "axes": np.array([0]),
        "rest": np.array([-1]),
        "v": numbers(72, 5),
    }
    proto = model(nodes, inits, {"x": ["batch", 3, 8, 8]})
    graph = read(proto, tmp_path, LoadOptions(batch_size=4))
    assert graph.tensors["f"].shape == (4, 72)
    assert [type(entry.op) for entry in graph.nodes] == [ops.Conv, ops.Reshape, ops.Linear]
    assert_like_onnxruntime(proto, graph)


def test_rearranged_weight_keeps_its_name_and_its_gradient(tmp_path: Path) -> None:
    nodes = [node("Transpose", ["fc.weight"], "wt"), node("MatMul", ["x", "wt"], "y")]
    graph = read(model(nodes, {"fc.weight": numbers(4, 6)}, {"x": [2, 6]}), tmp_path)
    (layer,) = graph.nodes
    assert (layer.name, layer.op) == ("fc", ops.Linear(6, 4, transposed=True))
    assert graph.parameters["wt"].trainable
    np.testing.assert_array_equal(graph.weights.load("wt"), numbers(4, 6).T)


def test_computed_weight_of_a_convolution_is_not_understood(tmp_path: Path) -> None:
    inits = {"v": numbers(2, 3, 3, 3), "g": numbers(2, 1, 1, 1)}
    scaled = [node("Mul", ["v", "g"], "w"), node("Conv", ["x", "w"], "y")]
    graph = read(model(scaled, inits, {"x": [1, 3, 8, 8]}), tmp_path)
    (layer,) = graph.nodes
    assert "computed from other parameters" in layer.op.reason  # type: ignore[attr-defined]
    assert {name for _, name in layer.parameters} == {"v", "g"}  # their gradients are its gradients
    assert all(p.trainable for p in graph.parameters.values())


def test_tied_matrix_is_one_parameter_with_two_uses(tmp_path: Path) -> None:
    tied = [
        node("Transpose", ["v"], "w"),
        node("MatMul", ["x", "w"], "h"),
        node("MatMul", ["h", "v"], "y"),
    ]
    proto = model(tied, {"v": numbers(4, 6)}, {"x": [2, 6]})
    graph = read(proto, tmp_path)
    assert [entry.op for entry in graph.nodes] == [
        ops.Linear(6, 4, transposed=False),
        ops.Linear(4, 6, transposed=True),
    ]
    assert graph.parameter_uses == {"v": 2}
    assert_like_onnxruntime(proto, graph)


def test_not_understood_nodes_stay_connected(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [node("Relu", ["p"], "inner")],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", FLOAT, None)],
    )
    nodes = [
        node("Conv", ["x", "w"], "c"),
        node("Shrink", ["c"], "p"),
        node("IsNaN", ["c"], "flag"),
        helper.make_node("If", ["flag"], ["q"], then_branch=branch, else_branch=branch),
        helper.make_node("Strange", ["q"], ["r"], domain="acme"),
        node("Conv", ["x", "r"], "y"),
    ]
    nodes.insert(4, helper.make_node("Strange", ["q", "s"], ["r2"], domain="acme"))
    inits = {"w": numbers(2, 3, 3, 3), "s": numbers(2)}
    proto = model(nodes, inits, {"x": [1, 3, 8, 8]}, opset=18)
    proto.opset_import.append(helper.make_opsetid("acme", 1))
    graph = read(proto, tmp_path)
    found = {entry.outputs[0]: (entry.inputs, entry.origin) for entry in graph.nodes}
    assert found == {
        "c": (("x",), "Conv"),
        "p": (("c",), "Shrink"),
        "flag": (("c",), "IsNaN"),
        "q": (("flag", "p"), "If"),
        "r2": (("q",), "acme::Strange"),
        "r": (("q",), "acme::Strange"),
        "y": (("x", "r"), "Conv"),
    }
    reasons = [e.op.reason for e in graph.nodes if isinstance(e.op, ops.Unsupported)]
    assert [text.split(" of ")[0] for text in reasons] == [
        "the operator Shrink is not known",
        "the operator IsNaN is not known",
        "control flow is not followed",
        "operators",
        "operators",
        "its weight is computed at run time",
    ]
    assert graph.parameters["s"].trainable
    assert graph.tensors["q"].shape == graph.tensors["p"].shape == (1, 2, 6, 6)
    assert graph.tensors["r"].shape == ()


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (node("Dropout", ["x", "", "on"], "y"), "training_mode"),
        (node("PRelu", ["x", "slopes"], "y"), "slopes"),
        (node("Conv", ["x", "w"], "y"), "axes"),
        (node("Elu", ["x"], "y", alpha=1), "unexpected type"),
        (node("Clip", ["x", "x"], "y"), "run time"),
    ],
)
def test_reasons(made: onnx.NodeProto, reason: str, tmp_path: Path) -> None:
    inits = {"w": numbers(6, 6), "on": np.array(True), "slopes": numbers(6, 6)}
    graph = read(model([made], inits, {"x": [6, 6]}), tmp_path)
    assert isinstance(graph.nodes[0].op, ops.Unsupported)
    assert reason in graph.nodes[0].op.reason


def test_named_sizes_and_several_inputs(tmp_path: Path) -> None:
    proto = model(
        [node("Relu", ["a"], "p"), node("Relu", ["b"], "q")],
        {},
        {"a": ["n", 3, "side", "side"], "b": ["n", "side"]},
        ["p", "q"],
    )
    graph = read(proto, tmp_path, LoadOptions({"a": (5, 3, 7, 7)}))
    assert {name: graph.tensors[name].shape for name in "abpq"} == {
        "a": (5, 3, 7, 7),
        "b": (5, 7),
        "p": (5, 3, 7, 7),
        "q": (5, 7),
    }


def test_sizes_the_file_claims_for_other_batches_are_ignored(tmp_path: Path) -> None:
    proto = model([node("Relu", ["x"], "m"), node("Tanh", ["m"], "y")], {}, {"x": ["n", 3]})
    proto.graph.value_info.append(helper.make_tensor_value_info("m", FLOAT, [1, 99]))
    graph = read(proto, tmp_path, LoadOptions(batch_size=6))
    assert graph.tensors["m"].shape == graph.tensors["y"].shape == (6, 3)


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_published_networks(path: Path) -> None:
    proto = onnx.load(path)
    start = time.perf_counter()
    graph = load(str(path), LoadOptions())
    assert time.perf_counter() - start < 5
    kinds = [entry.op_type for entry in proto.graph.node]
    for op_type, ours in [("Conv", ops.Conv), ("Gemm", ops.Linear), ("Relu", ops.Relu)]:
        layers = [entry for entry in graph.nodes if isinstance(entry.op, ours)]
        assert len(layers) == kinds.count(op_type)
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    for value in inferred.graph.value_info:
        if value.name in graph.tensors:
            sizes = tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
            assert graph.tensors[value.name].shape == sizes, value.name
    first = next(entry for entry in graph.nodes if isinstance(entry.op, ops.Conv))
    weight = first.parameter("weight")
    assert weight is not None
    assert graph.parameters[weight].trainable
    loaded = graph.weights.load(weight)
    assert loaded.shape == graph.parameters[weight].shape
    assert math.prod(loaded.shape) == loaded.size > 0


def test_neither_torch_nor_onnxruntime_is_imported() -> None:
    code = (
        "import sys; from leakaudit.frontends.onnx.reader import load; "
        "from leakaudit.frontends.interface import LoadOptions; "
        f"load({str(LIGHT[0])!r}, LoadOptions()); "
        "print({'torch', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
