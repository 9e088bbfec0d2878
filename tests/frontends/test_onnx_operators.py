"""Operators of real networks: every value against onnxruntime, and what stays traceable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_reference import FLOAT, Inits, model, node, numbers, onnxruntime_values, read

from leakaudit.frontends.coverage import coverage
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph, Node
from leakaudit.graph import operators as ops
from leakaudit.leakpath.path import find_leak_path
from leakaudit.rconv.execute import run


def assert_runs_like_onnxruntime(proto: onnx.ModelProto, graph: Graph) -> None:
    """Our execution gives every value of the file that the graph names, as onnxruntime does."""
    feeds = {
        name: numbers(*graph.tensors[name].shape, seed=index)
        for index, name in enumerate(graph.inputs)
    }
    weights = {name: torch.tensor(graph.weights.load(name)) for name in graph.parameters}
    for name, parameter in graph.parameters.items():
        assert tuple(weights[name].shape) == parameter.shape, name
    found = run(graph, weights, {name: torch.tensor(array) for name, array in feeds.items()})
    inside = {name for entry in proto.graph.node for name in entry.output}
    named = [name for name in graph.tensors if name in inside or name in graph.inputs]
    assert set(graph.outputs) <= set(named)
    view = Graph(
        **{
            **{field: getattr(graph, field) for field in Graph.__dataclass_fields__},
            "tensors": {name: graph.tensors[name] for name in named},
        }
    )
    for name, array in onnxruntime_values(proto, view, feeds).items():
        assert graph.tensors[name].shape == array.shape, name
        assert graph.tensors[name].dtype == array.dtype.name, name
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


def one(
    op: str,
    others: list[str] | None = None,
    shape: tuple[int, ...] = (2, 4, 6, 6),
    opset: int = 17,
    *,
    before: list[str] | None = None,
    inits: Inits | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node that reads x, and initializers before and after it."""
    inputs = [*(before or []), "x", *(others or [])]
    return model([node(op, inputs, "y", **attributes)], inits or {}, {"x": [*shape]}, opset=opset)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


SQUARE = (5, 6)

MODELS: dict[str, Callable[[], tuple[onnx.ModelProto, list[type[ops.Operator]]]]] = {
    "gemm transA": lambda: (
        one("Gemm", ["w"], (6, 5), transA=1, inits={"w": numbers(6, 4)}),
        [ops.Transpose, ops.MatMul],
    ),
    "gemm with a matrix added": lambda: (
        one(
            "Gemm",
            ["w", "c"],
            SQUARE,
            alpha=0.5,
            beta=2.0,
            inits={"w": numbers(6, 4), "c": numbers(5, 4)},
        ),
        [ops.Linear, ops.Scale, ops.Add],
    ),
    "gemm of itself": lambda: (
        one("Gemm", ["x", "c"], SQUARE, transB=1, alpha=0.5, inits={"c": numbers(5)}),
        [ops.Transpose, ops.MatMul, ops.Scale, ops.Add],
    ),
    "matmul, stored left": lambda: (
        one("MatMul", before=["w"], inits={"w": numbers(3, 6)}),
        [ops.MatMul],
    ),
    "matmul, stored batch": lambda: (
        one("MatMul", ["w"], inits={"w": numbers(4, 6, 3)}),
        [ops.MatMul],
    ),
    "einsum": lambda: (
        one("Einsum", ["w"], equation="...ij, jk", inits={"w": numbers(6, 3)}),
        [ops.Einsum],
    ),
    "subtraction from a constant": lambda: (
        one("Sub", before=["c"], inits={"c": numbers(1)}),
        [ops.Sub],
    ),
    "division": lambda: (one("Div", ["c"], inits={"c": numbers(4, 1, 1) + 2}), [ops.Div]),
    "integer exponent": lambda: (one("Pow", ["c"], inits={"c": ints(2)}), [ops.Pow]),
    "sum": lambda: (
        one("Sum", ["a", "b", "x"], inits={"a": numbers(6), "b": numbers(4, 1, 1)}),
        [ops.Add] * 3,
    ),
    "sum of one": lambda: (one("Sum"), [ops.Identity]),
    "mean": lambda: (
        one("Mean", ["a", "x"], inits={"a": numbers(6)}),
        [ops.Add, ops.Add, ops.Scale],
    ),
    "relu6 by min and max": lambda: (
        model(
            [node("Max", ["x", "low"], "m"), node("Min", ["high", "m"], "y")],
            {"low": np.float32(0), "high": np.full((1,), 0.5, np.float32)},
            {"x": [2, 6]},
        ),
        [ops.Clip, ops.Clip],
    ),
    "where hides": lambda: (
        one(
            "Where",
            ["hidden"],
            (2, 4, 4),
            before=["seen"],
            inits={"seen": np.tril(np.ones((4, 4), bool)), "hidden": np.float32(-np.inf)},
        ),
        [ops.Mul, ops.Add],
    ),
    "where chooses": lambda: (
        one(
            "Where",
            ["other"],
            (2, 4, 4),
            before=["seen"],
            inits={"seen": np.tril(np.ones((4, 4), bool)), "other": numbers(2, 4, 4)},
        ),
        [ops.Mul, ops.Mul, ops.Add],
    ),
    "clip by attributes": lambda: (one("Clip", opset=8, min=-0.25, max=0.5), [ops.Clip]),
    "clip from below": lambda: (one("Clip", opset=8, min=-0.25), [ops.Clip]),
    "dropout of opset 7": lambda: (one("Dropout", opset=7, ratio=0.5), [ops.Identity]),
    "softmax over the rest": lambda: (
        one("Softmax", opset=11),
        [ops.Reshape, ops.Softmax, ops.Reshape],
    ),
    "logsoftmax over the rest": lambda: (
        one("LogSoftmax", opset=11, axis=2),
        [ops.Reshape, ops.Softmax, ops.Reshape],
    ),
    "softmax of an image of one pixel": lambda: (
        one("Softmax", (), (2, 4, 1, 1), 11),  # type: ignore[arg-type]
        [ops.Softmax],
    ),
    "softmax over the channels": lambda: (one("Softmax", axis=1), [ops.Softmax]),
    "slice by attributes": lambda: (
        one("Slice", opset=9, starts=[1, -3], ends=[3, 2**31 - 1], axes=[1, 3]),
        [ops.Slice],
    ),
    "slice backwards": lambda: (
        one(
            "Slice",
            ["s", "e", "a", "t"],
            inits={"s": ints(-1, 5), "e": ints(-(2**31), 1), "a": ints(-1, 2), "t": ints(-1, -2)},
        ),
        [ops.Slice],
    ),
    "pad and cut": lambda: (
        one(
            "Pad",
            ["p", "v"],
            inits={"p": ints(0, 0, 1, -2, 0, 0, -1, 3), "v": np.float32(0.5)},
        ),
        [ops.Slice, ops.Pad],
    ),
    "cut by padding": lambda: (
        one("Pad", ["p"], inits={"p": ints(0, 0, -1, -2, 0, 0, -1, 0)}),
        [ops.Slice],
    ),
    "pad by attributes": lambda: (
        one("Pad", opset=9, pads=[0, 0, 1, 2, 0, 0, 2, 1], mode="reflect"),
        [ops.Pad],
    ),
    "tile": lambda: (
        one("Tile", ["r"], (2, 1, 3), inits={"r": ints(1, 2, 3)}),
        [ops.Concat, ops.Concat],
    ),
    "tile of single elements": lambda: (
        one("Tile", ["r"], (2, 1, 3), inits={"r": ints(1, 5, 1)}),
        [ops.Expand],
    ),
    "gather": lambda: (
        one("Gather", ["i"], axis=-1, inits={"i": ints(-1, 0, 2, 2).reshape(2, 2)}),
        [ops.Gather],
    ),
    "gather of one": lambda: (
        one("Gather", ["i"], axis=1, inits={"i": np.array(-2, np.int64)}),
        [ops.Gather],
    ),
    "depth to space": lambda: (
        one("DepthToSpace", blocksize=2, mode="CRD"),
        [ops.Reshape, ops.Transpose, ops.Reshape],
    ),
    "reduce by attribute": lambda: (
        one("ReduceMean", axes=[-1, 1], keepdims=0),
        [ops.Reduce],
    ),
    "reduce everything": lambda: (one("ReduceSum"), [ops.Reduce]),
    "reduce nothing": lambda: (
        one("ReduceSum", ["a"], inits={"a": ints()}, noop_with_empty_axes=1),
        [ops.Reduce],
    ),
    "global lp pool": lambda: (one("GlobalLpPool", p=3), [ops.LpPool]),
    "max pool": lambda: (
        one("MaxPool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 0, 1], dilations=[1, 2]),
        [ops.MaxPool],
    ),
    "max pool rounds up": lambda: (
        one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        [ops.MaxPool],
    ),
    "average pool": lambda: (
        one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
        [ops.AveragePool],
    ),
    "average pool counts padding": lambda: (
        one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        [ops.AveragePool],
    ),
    "transposed convolution": lambda: (
        one(
            "ConvTranspose",
            ["w", "b"],
            strides=[2, 3],
            pads=[1, 0, 2, 1],
            output_padding=[1, 2],
            group=2,
            inits={"w": numbers(4, 3, 3, 4), "b": numbers(6)},
        ),
        [ops.ConvTranspose],
    ),
    "transposed convolution to a shape": lambda: (
        one(
            "ConvTranspose",
            ["w"],
            strides=[2, 2],
            output_shape=[12, 11],
            inits={"w": numbers(4, 3, 3, 3)},
        ),
        [ops.ConvTranspose],
    ),
    "batch normalisation": lambda: (
        one(
            "BatchNormalization",
            ["s", "b", "m", "v"],
            epsilon=0.01,
            inits={"s": numbers(4), "b": numbers(4), "m": numbers(4), "v": numbers(4) ** 2},
        ),
        [ops.BatchNorm],
    ),
    "layer normalisation": lambda: (
        one(
            "LayerNormalization",
            ["s", "b"],
            axis=2,
            inits={"s": numbers(6, 6), "b": numbers(6, 6)},
        ),
        [ops.LayerNorm],
    ),
    "layer normalisation, repeated scale": lambda: (
        one("LayerNormalization", ["s"], axis=2, inits={"s": numbers(6)}),
        [ops.LayerNorm, ops.Mul],
    ),
    "instance normalisation": lambda: (
        one("InstanceNormalization", ["s", "b"], inits={"s": numbers(4), "b": numbers(4)}),
        [ops.GroupNorm],
    ),
    "group normalisation": lambda: (
        one(
            "GroupNormalization",
            ["s", "b"],
            opset=21,
            num_groups=2,
            inits={"s": numbers(4), "b": numbers(4)},
        ),
        [ops.GroupNorm],
    ),
    "local response": lambda: (
        one("LRN", size=3, alpha=0.1, beta=0.6, bias=2.0),
        [ops.LocalResponseNorm],
    ),
    "p-norm": lambda: (one("LpNormalization", axis=1, p=1), [ops.LpNormalization]),
    "mean and variance": lambda: (
        one("MeanVarianceNormalization", axes=[0, 2, 3]),
        [
            ops.Reduce,
            ops.Sub,
            ops.Elementwise,
            ops.Reduce,
            ops.Elementwise,
            ops.Scale,
            ops.Div,
        ],
    ),
    "upsample of opset 7": lambda: (
        one("Upsample", opset=7, mode="linear", scales=[1.0, 1.0, 2.0, 1.5]),
        [ops.Resize],
    ),
    "resize of opset 10": lambda: (
        one("Resize", ["s"], opset=10, inits={"s": np.array([1, 1, 2, 0.5], np.float32)}),
        [ops.Resize],
    ),
    "resize by some axes": lambda: (
        one(
            "Resize",
            ["", "s"],
            opset=18,
            axes=[3, 2],
            mode="linear",
            inits={"s": np.array([1.5, 2], np.float32)},
        ),
        [ops.Resize],
    ),
    "resize to sizes": lambda: (
        one(
            "Resize",
            ["", "", "n"],
            mode="cubic",
            coordinate_transformation_mode="align_corners",
            inits={"n": ints(2, 4, 9, 4)},
        ),
        [ops.Resize],
    ),
    "half precision and back": lambda: (
        model(
            [node("Cast", ["x"], "d", to=TensorProto.DOUBLE), node("CastLike", ["d", "x"], "y")],
            {},
            {"x": [2, 3]},
        ),
        [ops.Identity, ops.Identity],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_operator(name: str, tmp_path: Path) -> None:
    proto, kinds = MODELS[name]()
    graph = read(proto, tmp_path)
    assert [type(entry.op) for entry in graph.nodes] == kinds
    assert graph.outputs == ("y",)
    assert_runs_like_onnxruntime(proto, graph)
    find_leak_path(graph, "cross-entropy")  # whatever it finds, every operator can be asked


def reasons(graph: Graph) -> list[str]:
    return [e.op.reason for e in graph.nodes if isinstance(e.op, ops.Unsupported)]


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "max pool with indices": (
        lambda: model(
            [helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2])],
            {},
            {"x": [1, 2, 4, 4]},
            ["y", "i"],
        ),
        "more than its first output",
    ),
    "batch normalisation per element": (
        lambda: one(
            "BatchNormalization",
            ["s", "s", "s", "s"],
            opset=8,
            spatial=0,
            inits={"s": numbers(4, 6, 6)},
        ),
        "every element",
    ),
    "padding without end": (
        lambda: one("Conv", ["w"], pads=[0, 0, 0, 2**31 - 1], inits={"w": numbers(1, 4, 3, 3)}),
        "padding is above",
    ),
    "more elements than there is memory": (
        lambda: one("Pad", ["p"], inits={"p": ints(0, 0, 0, 0, 0, 0, 2**30, 2**30)}),
        "elements",
    ),
    "an axis beyond its input": (
        lambda: one("LayerNormalization", ["s"], axis=2**63 - 1, inits={"s": numbers(6)}),
        "no axis",
    ),
    "more parts than it says": (
        lambda: model(
            [helper.make_node("Split", ["x"], ["y", "z", "w"], num_outputs=2, axis=1)],
            {},
            {"x": [2, 6]},
            opset=18,
        ),
        "is not known",
    ),
    "no inputs": (
        lambda: model([node("Sum", [], "s"), node("Add", ["x", "s"], "y")], {}, {"x": [2]}),
        "do not fit each other",
    ),
    "scale per group": (
        lambda: one(
            "GroupNormalization", ["s", "s"], opset=18, num_groups=2, inits={"s": numbers(2)}
        ),
        "one value per channel",
    ),
    "antialias": (
        lambda: one(
            "Resize",
            ["", "s"],
            opset=18,
            antialias=1,
            mode="linear",
            inits={"s": np.array([1, 1, 0.5, 0.5], np.float32)},
        ),
        "smooths",
    ),
    "active dropout": (
        lambda: one("Dropout", ["r", "t"], inits={"r": np.float32(0.5), "t": np.array(True)}),
        "training_mode",
    ),
    "cast to integers": (lambda: one("Cast", to=TensorProto.INT64), "float32 into int64"),
    "division of integers": (
        lambda: model(
            [node("Cast", ["x"], "i", to=TensorProto.INT32), node("Div", ["i", "i"], "y")],
            {},
            {"x": [4]},
        ),
        "of type int32",
    ),
    "quantised": (
        lambda: one(
            "QuantizeLinear",
            ["s", "z"],
            inits={"s": np.float32(0.1), "z": np.uint8([3]).reshape(())},
        ),
        "quantised arithmetic",
    ),
    "where at run time": (
        lambda: model(
            [node("Cast", ["x"], "c", to=TensorProto.BOOL), node("Where", ["c", "x", "x"], "y")],
            {},
            {"x": [4]},
        ),
        "computed at run time",
    ),
    "index at run time": (
        lambda: model(
            [node("ArgMax", ["x"], "i", axis=1), node("Gather", ["x", "i"], "y")],
            {},
            {"x": [2, 4]},
        ),
        "computed at run time",
    ),
    "loop": (
        lambda: one(
            "Loop",
            before=["n", "go"],
            inits={"n": ints(2).reshape(()), "go": np.array(True)},
            body=helper.make_graph(
                [node("Identity", ["c"], "d"), node("Relu", ["v"], "w")],
                "body",
                [
                    helper.make_tensor_value_info("i", TensorProto.INT64, []),
                    helper.make_tensor_value_info("c", TensorProto.BOOL, []),
                    helper.make_tensor_value_info("v", FLOAT, None),
                ],
                [
                    helper.make_tensor_value_info("d", TensorProto.BOOL, []),
                    helper.make_tensor_value_info("w", FLOAT, None),
                ],
            ),
        ),
        "control flow",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name: str, tmp_path: Path) -> None:
    make, reason = REFUSED[name]
    graph = read(make(), tmp_path)
    assert any(reason in text for text in reasons(graph)), reasons(graph)


def test_a_builder_that_gives_up_leaves_nothing_behind(tmp_path: Path) -> None:
    """Attention splits its query into heads before it sees that its key does not divide."""
    proto = one(
        "Attention",
        ["k", "k"],
        (1, 5, 8),
        opset=23,
        q_num_heads=2,
        kv_num_heads=3,
        inits={"k": numbers(1, 5, 8)},
    )
    graph = read(proto, tmp_path)
    (layer,) = graph.nodes
    assert isinstance(layer.op, ops.Unsupported)
    assert "key" in layer.op.reason
    assert set(graph.tensors) == {"x", "y"}
    assert (layer.name, layer.inputs, set(graph.parameters)) == ("Attention_0", ("x",), {"k"})


# --- parameters ---------------------------------------------------------------------------------


def steps(graph: Graph) -> set[str]:
    report = find_leak_path(graph, "cross-entropy").report
    return {step.kind for step in report.steps}


def test_learned_position_embedding_gives_the_image_away(tmp_path: Path) -> None:
    """A vision transformer's front: patches, class token, positions of which some are read."""
    nodes = [
        node("Conv", ["x", "patch.weight"], "c", strides=[4, 4]),
        node("Reshape", ["c", "flat"], "f"),
        node("Transpose", ["f"], "t", perm=[0, 2, 1]),
        node("Expand", ["cls", "wide"], "e"),
        node("Concat", ["e", "t"], "s", axis=1),
        node("Slice", ["pos", "from", "to", "axis"], "p"),
        node("Add", ["s", "p"], "h"),
        node("Sin", ["h"], "n"),  # stops every other path
        node("ReduceMean", ["n"], "m", axes=[1], keepdims=0),
        node("Gemm", ["m", "head.weight"], "y", transB=1),
    ]
    inits = {
        "patch.weight": numbers(64, 3, 4, 4),
        "flat": ints(1, 64, 4),
        "cls": numbers(1, 1, 64),
        "wide": ints(1, 1, 64),
        "pos": numbers(1, 9, 64),
        "from": ints(0),
        "to": ints(5),
        "axis": ints(1),
        "head.weight": numbers(10, 64),
    }
    proto = model(nodes, inits, {"x": [1, 3, 8, 8]})
    graph = read(proto, tmp_path)
    assert_runs_like_onnxruntime(proto, graph)
    made = {entry.outputs[0]: entry for entry in graph.nodes}
    assert (made["e"].op, made["e"].inputs) == (ops.Expand(), ("cls",))
    assert (type(made["p"].op), made["p"].inputs) == (ops.Slice, ("pos",))
    assert made["h"].inputs == ("s", "p")
    assert {n: p.trainable for n, p in graph.parameters.items()} == dict.fromkeys(
        ("patch.weight", "cls", "pos", "head.weight"), True
    )
    assert "selected-parameter-gradient" in steps(graph)
    assert find_leak_path(graph, "cross-entropy").report.reaches_input
    frozen = read(proto, tmp_path, LoadOptions(frozen=("pos",)))
    assert not frozen.parameters["p"].trainable  # numbers like any other: no node makes them
    assert not find_leak_path(frozen, "cross-entropy").report.reaches_input


@pytest.mark.parametrize("way", ["Gather", "Reshape", "Transpose", "Unsqueeze", "Mul", "Cast"])
def test_parameter_on_its_way_to_an_addition(way: str, tmp_path: Path) -> None:
    entry, inits, extra = {
        "Gather": (node("Gather", ["pos", "i"], "p"), numbers(7, 6), {"i": ints(4, 0, 3)}),
        "Reshape": (node("Reshape", ["pos", "i"], "p"), numbers(18), {"i": ints(3, 6)}),
        "Transpose": (node("Transpose", ["pos"], "p"), numbers(6, 3), {}),
        "Unsqueeze": (node("Unsqueeze", ["pos", "i"], "p"), numbers(3, 6), {"i": ints(0)}),
        "Mul": (node("Mul", ["pos", "i"], "p"), numbers(3, 6), {"i": numbers(1)}),
        "Cast": (node("Cast", ["pos"], "p", to=FLOAT), numbers(3, 6), {}),
    }[way]
    proto = model([entry, node("Add", ["p", "x"], "y")], {"pos": inits, **extra}, {"x": [1, 3, 6]})
    graph = read(proto, tmp_path)
    assert_runs_like_onnxruntime(proto, graph)
    first, last = graph.nodes
    assert "pos" in first.inputs
    assert last.inputs == ("p", "x")
    assert graph.parameters["pos"].trainable
    assert graph.parameter_uses["pos"] == 1
    find_leak_path(graph, "cross-entropy")


def test_parameter_behind_an_unknown_operator_is_not_lost(tmp_path: Path) -> None:
    nodes = [
        node("ScatterND", ["pos", "i", "u"], "p"),
        node("Add", ["x", "p"], "y"),
    ]
    inits = {"pos": numbers(3, 6), "i": ints(0).reshape(1, 1), "u": numbers(1, 6)}
    graph = read(model(nodes, inits, {"x": [1, 3, 6]}), tmp_path)
    unknown, add = graph.nodes
    assert isinstance(unknown.op, ops.Unsupported)
    assert {name for _, name in unknown.parameters} == {"pos", "u"}
    assert add.inputs == ("x", "p")


def test_what_parameters_become_stays_where_the_reader_is_not_understood(tmp_path: Path) -> None:
    nodes = [
        node("ScatterND", ["pos", "i", "u"], "p"),
        node("Transpose", ["p"], "t"),
        helper.make_node("Strange", ["x"], ["s"], domain="acme"),
        node("Mul", ["t", "s"], "y"),
    ]
    inits = {"pos": numbers(3, 6), "i": ints(0).reshape(1, 1), "u": numbers(1, 6)}
    proto = model(nodes, inits, {"x": [6, 3]})
    proto.opset_import.append(helper.make_opsetid("acme", 1))
    graph = read(proto, tmp_path)
    made = {entry.outputs[0]: type(entry.op) for entry in graph.nodes}
    assert made == {
        "s": ops.Unsupported,
        "p": ops.Unsupported,
        "t": ops.Transpose,
        "y": ops.Unsupported,
    }
    assert graph.producers["y"].inputs == ("t", "s")
    assert graph.parameter_uses == {"pos": 1, "u": 1}


def test_constants_are_not_trained_and_initializers_are(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(numbers(3, 6)))
    nodes = [
        constant,
        node("Transpose", ["k"], "kt"),
        node("Transpose", ["kt"], "ktt"),
        node("Add", ["x", "ktt"], "a"),
        node("Mul", ["a", "w"], "y"),
    ]
    graph = read(model(nodes, {"w": numbers(6)}, {"x": [1, 3, 6]}), tmp_path)
    assert [type(entry.op) for entry in graph.nodes] == [ops.Add, ops.Mul]
    found = {name: (p.trainable, p.trainable_assumed) for name, p in graph.parameters.items()}
    assert found == {"ktt": (False, False), "w": (True, True)}
    np.testing.assert_array_equal(graph.weights.load("ktt"), numbers(3, 6))


def test_statistics_send_no_gradient(tmp_path: Path) -> None:
    proto, _ = MODELS["batch normalisation"]()
    graph = read(proto, tmp_path)
    assert {name: p.trainable for name, p in graph.parameters.items()} == {
        "s": True,
        "b": True,
        "m": False,
        "v": False,
    }


def test_batch_normalisation_in_training(tmp_path: Path) -> None:
    statistics = ["s", "b", "m", "v"]
    training = helper.make_node(
        "BatchNormalization", ["x", *statistics], ["y", "mean", "var"], training_mode=1
    )
    inits = {name: numbers(4) for name in statistics}
    graph = read(model([training], inits, {"x": [2, 4, 6, 6]}, ["y"]), tmp_path)
    assert graph.nodes[0].op == ops.BatchNorm(training=True)
    assert set(graph.parameters) == {"s", "b"}
    graph = read(model([training], inits, {"x": [2, 4, 6, 6]}, ["y", "mean"]), tmp_path)
    assert "more than its first output" in reasons(graph)[0]


def test_weight_read_by_two_nodes_in_two_ways(tmp_path: Path) -> None:
    """Neither of them may take the gradient for its own."""
    nodes = [
        node("Conv", ["x", "w"], "c"),
        node("Mul", ["w", "two"], "w2"),
        node("Conv", ["c", "w2"], "y"),
    ]
    inits = {"w": numbers(3, 3, 3, 3), "two": numbers(1)}
    graph = read(model(nodes, inits, {"x": [1, 3, 8, 8]}), tmp_path)
    assert isinstance(graph.nodes[1].op, ops.Unsupported)
    assert graph.parameter_uses["w"] == 2


def test_bias_under_two_shapes(tmp_path: Path) -> None:
    nodes = [
        node("Gemm", ["x", "w", "b"], "h"),
        node("Add", ["h", "b"], "y"),
    ]
    inits = {"w": numbers(6, 4), "b": numbers(1, 4)}
    graph = read(model(nodes, inits, {"x": [2, 6]}), tmp_path)
    assert isinstance(graph.nodes[0].op, ops.Linear)
    assert "two shapes" in reasons(graph)[0]


def test_embedding(tmp_path: Path) -> None:
    proto = model(
        [node("Gather", ["table", "ids"], "e"), node("MatMul", ["e", "w"], "y")],
        {"table": numbers(9, 4), "w": numbers(4, 2)},
        {"ids": [1, 5]},
    )
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    graph = read(proto, tmp_path)
    assert [type(entry.op) for entry in graph.nodes] == [ops.Embedding, ops.Linear]
    assert graph.nodes[0].parameters == (("weight", "table"),)
    ids = ints(3, 0, 8, -1, 3).reshape(1, 5)
    weights = {name: torch.tensor(graph.weights.load(name)) for name in graph.parameters}
    found = run(graph, weights, {"ids": torch.tensor(ids)})["y"]
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    np.testing.assert_allclose(found, session.run(None, {"ids": ids})[0], rtol=1e-5)


def test_dequantised_weight_is_a_trained_weight(tmp_path: Path) -> None:
    inits = {
        "q": np.arange(-27, 27, dtype=np.int8).reshape(2, 3, 3, 3),
        "scale": np.array([0.1, 0.02], np.float32),
        "zero": np.array([3, -2], np.int8),
    }
    nodes = [
        node("DequantizeLinear", ["q", "scale", "zero"], "w", axis=0),
        node("Conv", ["x", "w"], "y"),
    ]
    proto = model(nodes, inits, {"x": [1, 3, 8, 8]})
    graph = read(proto, tmp_path)
    (layer,) = graph.nodes
    assert isinstance(layer.op, ops.Conv)
    assert graph.parameters["w"].trainable
    assert_runs_like_onnxruntime(proto, graph)


# --- functions and branches ---------------------------------------------------------------------


def with_functions(proto: onnx.ModelProto, *functions: onnx.FunctionProto) -> onnx.ModelProto:
    proto.opset_import.append(helper.make_opsetid("local", 1))
    proto.functions.extend(functions)
    return proto


def function(name: str, nodes: list[onnx.NodeProto], *parameters: str) -> onnx.FunctionProto:
    return helper.make_function(
        "local",
        name,
        ["a", *parameters],
        ["b"],
        nodes,
        [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)],
    )


def test_functions_of_the_file_are_followed(tmp_path: Path) -> None:
    dense = function(
        "Dense",
        [node("Gemm", ["a", "w", "v"], "g"), node("LeakyRelu", ["g"], "b", alpha=0.2)],
        "w",
        "v",
    )
    twice = function(
        "Twice",
        [
            helper.make_node("Dense", ["a", "w", "v"], ["t"], domain="local"),
            helper.make_node("Dense", ["t", "w", "v"], ["b"], domain="local"),
        ],
        "w",
        "v",
    )
    nodes = [
        helper.make_node("Twice", ["x", "w1", "v1"], ["t"], domain="local"),
        helper.make_node("Dense", ["t", "w2", "v2"], ["y"], domain="local"),
    ]
    inits = {"w1": numbers(6, 6), "v1": numbers(6), "w2": numbers(6, 4), "v2": numbers(4)}
    proto = with_functions(model(nodes, inits, {"x": ["n", 6]}), dense, twice)
    graph = read(proto, tmp_path)
    assert [type(entry.op) for entry in graph.nodes] == [ops.Linear, ops.LeakyRelu] * 3
    assert graph.parameter_uses == {"w1": 2, "v1": 2, "w2": 1, "v2": 1}
    assert_runs_like_onnxruntime(proto, graph)


def test_functions_that_cannot_be_followed(tmp_path: Path) -> None:
    """Thirty functions, each calling the one before twice, are a billion nodes."""
    doubling = [function("F0", [node("Relu", ["a"], "b")])]
    for depth in range(1, 31):
        call = [
            helper.make_node(f"F{depth - 1}", ["a"], ["t"], domain="local"),
            helper.make_node(f"F{depth - 1}", ["t"], ["b"], domain="local"),
        ]
        doubling.append(function(f"F{depth}", call))
    nodes = [helper.make_node("F30", ["x"], ["y"], domain="local")]
    graph = read(with_functions(model(nodes, {}, {"x": [2, 6]}), *doubling), tmp_path)
    assert "cannot be put in its place" in reasons(graph)[0]


def branch(nodes: list[onnx.NodeProto], output: str, inits: Inits | None = None) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        "branch",
        [],
        [helper.make_tensor_value_info(output, FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (inits or {}).items()],
    )


@pytest.mark.parametrize("condition", [True, False])
def test_branch_of_a_constant_condition(condition: bool, tmp_path: Path) -> None:
    """What exporters write for Squeeze: a condition on a shape. Names inside may repeat."""
    then = branch(
        [node("MatMul", ["h", "w"], "m"), node("Add", ["m", "v"], "t")],
        "t",
        {"w": numbers(6, 3), "v": numbers(3)},
    )
    other = branch([node("Relu", ["h"], "m"), node("Slice", ["m", "from", "to"], "t")], "t")
    kept = branch([node("Identity", ["h"], "m")], "m")
    nodes = [
        node("Tanh", ["x"], "h"),
        node("Shape", ["h"], "s"),
        node("Gather", ["s", "one"], "size"),
        node("Equal", ["size", "six" if condition else "one"], "c"),
        helper.make_node("If", ["c"], ["a"], then_branch=then, else_branch=other),
        helper.make_node("If", ["c"], ["m"], then_branch=then, else_branch=other),
        helper.make_node("If", ["c"], ["k"], then_branch=kept, else_branch=other),
        node("MatMul", ["a", "rotate"], "z"),
        node("Sum", ["z", "m"], "y"),
        node("Relu", ["k"], "u"),
    ]
    inits = {
        "one": np.array(1),
        "six": np.array(6),
        "from": ints(0, 0),
        "to": ints(2, 3),
        "rotate": numbers(3, 3),
    }
    proto = model(nodes, inits, {"x": [2, 6]}, ["y", "u"])
    graph = read(proto, tmp_path)
    assert reasons(graph) == []
    expected = ops.Linear if condition else ops.Slice
    assert sum(isinstance(entry.op, expected) for entry in graph.nodes) >= 2
    assert_runs_like_onnxruntime(proto, graph)


def test_branch_that_passes_a_value_on(tmp_path: Path) -> None:
    then = branch([], "h")
    other = branch([node("If", ["no"], "t", then_branch=then, else_branch=then)], "t")
    nodes = [
        node("Tanh", ["x"], "h"),
        node("If", ["no"], "k", then_branch=then, else_branch=other),
        node("Relu", ["k"], "y"),
    ]
    graph = read(model(nodes, {"no": np.array(False)}, {"x": [2, 6]}), tmp_path)
    assert [type(entry.op) for entry in graph.nodes] == [ops.Tanh, ops.Identity, ops.Relu]
    assert graph.producers["k"].inputs == ("h",)


# --- the table ----------------------------------------------------------------------------------


def test_every_operator_of_the_graph_comes_from_somewhere() -> None:
    table = {line.operator: line for line in coverage()}
    kinds = {getattr(ops, name) for name in ops.__all__}
    assert set(table) == kinds - {ops.Operator, ops.Activation, ops.Unsupported}
    assert [line.operator.__name__ for line in coverage()] == sorted(k.__name__ for k in table)
    assert all(line.onnx or line.aten for line in table.values())
    assert {kind.__name__ for kind, line in table.items() if not line.onnx} == {
        "AdaptiveAveragePool"
    }
    assert table[ops.Conv].onnx == ("Conv",)
    assert {"conv1d", "conv2d", "conv3d"} <= set(table[ops.Conv].aten)
    assert table[ops.Selu].onnx == ("Selu",)
    assert set(table[ops.Linear].onnx) == {"Gemm", "MatMul"}


def test_layers_are_named_after_their_weights(tmp_path: Path) -> None:
    inits = {f"layers.1.{role}": numbers(4) for role in ("weight", "bias", "mean", "var")}
    proto = one("BatchNormalization", list(inits), inits=inits)
    (layer,) = read(proto, tmp_path).nodes
    assert isinstance(layer, Node)
    assert layer.name == "layers.1"
