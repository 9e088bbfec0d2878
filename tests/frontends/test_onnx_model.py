"""The ONNX frontend against onnxruntime: every tensor's shape and value, from the graph we read."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.onnx_model import load
from leakaudit.graph import Graph, Node
from leakaudit.graph import operators as ops

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))
FLOAT = TensorProto.FLOAT

Inits = dict[str, np.ndarray]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto],
    inits: Inits,
    inputs: dict[str, list[int | str | None]],
    outputs: list[str] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 8,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [
            helper.make_tensor_value_info(name, FLOAT, None)
            for name in outputs or [nodes[-1].output[0]]
        ],
        [numpy_helper.from_array(array, name) for name, array in inits.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )


def node(
    op: str, inputs: list[str], output: str, name: str = "", **attributes: Any
) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=name, **attributes)


def read(proto: onnx.ModelProto, folder: Path, options: LoadOptions | None = None) -> Graph:
    path = folder / "net.onnx"
    onnx.save(proto, path)
    return load(str(path), options or LoadOptions())


def onnxruntime_values(proto: onnx.ModelProto, graph: Graph, feeds: Inits) -> Inits:
    """Every activation of `graph` as onnxruntime computes it from the file."""
    wanted = [name for name in graph.tensors if name not in graph.inputs]
    full = onnx.ModelProto()
    full.CopyFrom(proto)
    del full.graph.output[:]
    full.graph.output.extend(helper.make_value_info(name, onnx.TypeProto()) for name in wanted)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        full.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(wanted, session.run(wanted, feeds), strict=True))


def compute(graph: Graph, feeds: Inits) -> dict[str, torch.Tensor]:
    """Every activation from what the graph says, with torch: what the later stages rely on."""
    values = {name: torch.tensor(array) for name, array in feeds.items()}
    for entry in graph.nodes:
        x = values[entry.inputs[0]]
        values[entry.outputs[0]] = apply(entry, x, graph)
    return values


def apply(entry: Node, x: torch.Tensor, graph: Graph) -> torch.Tensor:
    def parameter(role: str) -> torch.Tensor:
        name = entry.parameter(role)
        assert name is not None
        array = graph.weights.load(name)
        assert array.shape == graph.parameters[name].shape
        assert array.dtype.name == graph.parameters[name].dtype
        return torch.tensor(array)

    bias = parameter("bias") if entry.parameter("bias") else torch.zeros(())
    match entry.op:
        case ops.Conv(kernel, stride, begin, end, dilation, groups):
            pads = [p for pair in reversed(list(zip(begin, end, strict=True))) for p in pair]
            convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[
                len(kernel)
            ]
            weight = parameter("weight")
            assert tuple(weight.shape[2:]) == kernel
            y = convolve(functional.pad(x, pads), weight, None, stride, 0, dilation, groups)
            return y + bias.reshape(-1, *[1] * len(kernel))
        case ops.Linear(_, _, transposed, alpha, beta):
            weight = parameter("weight")
            return alpha * x @ (weight if transposed else weight.T) + beta * bias
        case ops.Relu():
            return torch.relu(x)
        case ops.LeakyRelu(slope):
            return functional.leaky_relu(x, slope)
        case ops.PRelu():
            return functional.prelu(x, parameter("slope"))
        case ops.Elu(alpha):
            return functional.elu(x, alpha)
        case ops.Sigmoid():
            return torch.sigmoid(x)
        case ops.Tanh():
            return torch.tanh(x)
        case ops.ArcTan():
            return torch.atan(x)
        case ops.Softplus():
            return functional.softplus(x)
        case ops.Identity():
            return x
        case ops.Reshape():
            return x.reshape(graph.tensors[entry.outputs[0]].shape)
        case ops.Transpose(permutation):
            return x.permute(permutation)
    raise AssertionError(f"{entry.name} is {entry.op}")


def assert_like_onnxruntime(proto: onnx.ModelProto, graph: Graph) -> None:
    feeds = {
        name: numbers(*graph.tensors[name].shape, seed=index)
        for index, name in enumerate(graph.inputs)
    }
    expected = onnxruntime_values(proto, graph, feeds)
    assert expected
    found = compute(graph, feeds)
    for name, array in expected.items():
        assert graph.tensors[name].shape == array.shape, name
        assert graph.tensors[name].dtype == array.dtype.name, name
        np.testing.assert_allclose(found[name].numpy(), array, rtol=1e-4, atol=1e-5, err_msg=name)


def conv(
    sizes: tuple[int, ...], kernel: tuple[int, ...], groups: int = 1, **attributes: Any
) -> onnx.ModelProto:
    weight = numbers(2 * groups, 3, *kernel)
    return model(
        [node("Conv", ["x", "w", "b"], "y", group=groups, **attributes)],
        {"w": weight, "b": numbers(2 * groups)},
        {"x": [2, 3 * groups, *sizes]},
    )


def chain(*nodes: tuple[str, list[str], dict[str, Any]], **inits: np.ndarray) -> onnx.ModelProto:
    """Nodes of one activation input each, one after the other, on a (2, 4, 5, 6) input."""
    made, current = [], "x"
    for index, (op, others, attributes) in enumerate(nodes):
        made.append(node(op, [current, *others], f"t{index}", **attributes))
        current = f"t{index}"
    return model(made, inits, {"x": [2, 4, 5, 6]})


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "conv 1d": lambda: conv((11,), (3,), strides=[2], pads=[1, 0]),
    "conv 2d asymmetric": lambda: conv((9, 10), (3, 4), strides=[2, 3], pads=[0, 1, 2, 3]),
    "conv 3d": lambda: conv((6, 5, 7), (2, 3, 2), strides=[1, 2, 2], pads=[1, 0, 1, 0, 1, 1]),
    "conv groups dilation": lambda: conv((12, 9), (3, 2), 3, dilations=[2, 3], pads=[1, 1, 1, 1]),
    "conv kernel_shape": lambda: conv((8, 8), (3, 3), kernel_shape=[3, 3]),
    "conv SAME_UPPER": lambda: conv((10, 7), (3, 4), strides=[2, 3], auto_pad="SAME_UPPER"),
    "conv SAME_LOWER": lambda: conv((10, 7), (3, 4), strides=[2, 3], auto_pad="SAME_LOWER"),
    "conv SAME_LOWER stride 1": lambda: conv((10, 7), (2, 4), auto_pad="SAME_LOWER"),
    "conv SAME_UPPER stride > kernel": lambda: conv(
        (10, 7), (2, 2), strides=[3, 4], auto_pad="SAME_UPPER"
    ),
    "conv SAME_LOWER dilation": lambda: conv(
        (10, 7), (3, 2), dilations=[2, 3], strides=[1, 2], auto_pad="SAME_LOWER"
    ),
    "conv VALID": lambda: conv((10, 7), (3, 4), strides=[2, 3], auto_pad="VALID"),
    "gemm": lambda: model(
        [node("Gemm", ["x", "w", "b"], "y", alpha=0.5, beta=2.0)],
        {"w": numbers(6, 4), "b": numbers(1, 4)},
        {"x": [3, 6]},
    ),
    "gemm transB": lambda: model(
        [node("Gemm", ["x", "w"], "y", transB=1)], {"w": numbers(4, 6)}, {"x": [3, 6]}
    ),
    "matmul over tokens": lambda: model(
        [node("MatMul", ["x", "w"], "y")], {"w": numbers(6, 4)}, {"x": [2, 5, 6]}
    ),
    "activations": lambda: chain(
        ("LeakyRelu", [], {}),
        ("LeakyRelu", [], {"alpha": 0.2}),
        ("Elu", [], {}),
        ("Elu", [], {"alpha": 0.7}),
        ("PRelu", ["channels"], {}),
        ("PRelu", ["one"], {}),
        ("Sigmoid", [], {}),
        ("Tanh", [], {}),
        ("Atan", [], {}),
        ("Softplus", [], {}),
        ("Identity", [], {}),
        ("Dropout", [], {}),
        ("Relu", [], {}),
        channels=numbers(4, 1, 1),
        one=numbers(1),
    ),
    "rearrangements": lambda: chain(
        ("Transpose", [], {"perm": [0, 2, 3, 1]}),
        ("Transpose", [], {}),
        ("Reshape", ["shape"], {}),
        ("Unsqueeze", ["axes"], {}),
        ("Squeeze", ["axes"], {}),
        ("Flatten", [], {"axis": 2}),
        shape=np.array([0, -1, 2]),
        axes=np.array([1]),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_graph_computes_what_the_file_computes(name: str, tmp_path: Path) -> None:
    proto = MODELS[name]()
    assert_like_onnxruntime(proto, read(proto, tmp_path))


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
        assert graph.producers["y"].inputs == ("m",)


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


def test_weight_that_is_computed_or_shared_is_not_understood(tmp_path: Path) -> None:
    inits = {"v": numbers(4, 6), "g": numbers(4, 1)}
    scaled = [node("Mul", ["v", "g"], "w"), node("Gemm", ["x", "w"], "y", transB=1)]
    graph = read(model(scaled, inits, {"x": [2, 6]}), tmp_path)
    assert "computed from other parameters" in graph.nodes[0].op.reason  # type: ignore[attr-defined]
    tied = [
        node("Transpose", ["v"], "w"),
        node("MatMul", ["x", "w"], "h"),
        node("MatMul", ["h", "v"], "y"),
    ]
    graph = read(model(tied, inits, {"x": [2, 6]}), tmp_path)
    assert "other nodes read too" in graph.nodes[0].op.reason  # type: ignore[attr-defined]
    assert isinstance(graph.nodes[1].op, ops.Linear)


def test_not_understood_nodes_stay_connected(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [node("Relu", ["p"], "inner")],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", FLOAT, None)],
    )
    nodes = [
        node("Conv", ["x", "w"], "c"),
        node("InstanceNormalization", ["c", "s", "s"], "p"),
        helper.make_node("If", ["flag"], ["q"], then_branch=branch, else_branch=branch),
        helper.make_node("Strange", ["q"], ["r"], domain="acme"),
        node("Conv", ["x", "r"], "y"),
    ]
    inits = {"w": numbers(2, 3, 3, 3), "s": numbers(2), "flag": np.array(True)}
    proto = model(nodes, inits, {"x": [1, 3, 8, 8]}, opset=18)
    proto.opset_import.append(helper.make_opsetid("acme", 1))
    graph = read(proto, tmp_path)
    found = {entry.outputs[0]: (entry.inputs, entry.origin) for entry in graph.nodes}
    assert found == {
        "c": (("x",), "Conv"),
        "p": (("c",), "InstanceNormalization"),
        "q": (("p",), "If"),
        "r": (("q",), "acme::Strange"),
        "y": (("x", "r"), "Conv"),
    }
    reasons = [e.op.reason for e in graph.nodes if isinstance(e.op, ops.Unsupported)]
    assert [text.split(" of ")[0] for text in reasons] == [
        "the operator InstanceNormalization is not known",
        "control flow is not followed",
        "operators",
        "its weight is computed at run time",
    ]
    assert graph.parameters["s"].trainable
    assert graph.tensors["q"].shape == graph.tensors["p"].shape == (1, 2, 6, 6)
    assert graph.tensors["r"].shape == ()


def test_behind_a_function_shapes_are_known(tmp_path: Path) -> None:
    inner = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["b"],
        [node("Add", ["a", "a"], "b")],
        [helper.make_opsetid("", 17)],
    )
    nodes = [
        helper.make_node("Twice", ["x"], ["t"], domain="local"),
        node("Conv", ["t", "w"], "y"),
    ]
    proto = model(nodes, {"w": numbers(2, 3, 3, 3)}, {"x": ["n", 3, 8, 8]})
    proto.opset_import.append(helper.make_opsetid("local", 1))
    proto.functions.append(inner)
    graph = read(proto, tmp_path)
    assert isinstance(graph.producers["t"].op, ops.Unsupported)
    assert isinstance(graph.producers["y"].op, ops.Conv)
    assert graph.tensors["y"].shape == (1, 2, 6, 6)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (node("Gemm", ["x", "w"], "y", transA=1), "transA"),
        (node("Dropout", ["x", "", "on"], "y"), "training_mode"),
        (node("PRelu", ["x", "slopes"], "y"), "slopes"),
        (node("Conv", ["x", "w"], "y"), "axes"),
        (node("Elu", ["x"], "y", alpha=1), "unexpected type"),
        (node("MatMul", ["x", "x"], "y"), "run time"),
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
        "import sys; from leakaudit.frontends.onnx_model import load; "
        "from leakaudit.frontends.interface import LoadOptions; "
        f"load({str(LIGHT[0])!r}, LoadOptions()); "
        "print({'torch', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
