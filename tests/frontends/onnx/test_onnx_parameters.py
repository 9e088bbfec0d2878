"""Which stored numbers are trained, and that their way into the network stays traceable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_reference import FLOAT, model, node, numbers, read
from onnx_running import assert_runs_like_onnxruntime, ints, one, reasons

from leakaudit import operators as ops
from leakaudit.execute import run
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph, Node
from leakaudit.leakpath.path import find_leak_path


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


@pytest.mark.parametrize("hidden", [-np.inf, np.finfo(np.float32).min, -1e9])
def test_attention_masks_are_not_trained(hidden: float, tmp_path: Path) -> None:
    """Their shape is that of the scores: taken for a parameter, they would give them away."""
    mask = np.triu(np.full((5, 5), hidden, np.float32), 1)
    nodes = [
        node("Slice", ["mask", "from", "to"], "m"),
        node("Add", ["x", "m"], "s"),
        node("Softmax", ["s"], "p"),
        node("Mul", ["p", "w"], "y"),
    ]
    inits = {"mask": mask, "from": ints(0, 0), "to": ints(4, 4), "w": numbers(4)}
    proto = model(nodes, inits, {"x": [4, 4]})
    graph = read(proto, tmp_path)
    assert {name: p.trainable for name, p in graph.parameters.items()} == {"m": False, "w": True}
    assert_runs_like_onnxruntime(proto, graph)


def test_statistics_send_no_gradient(tmp_path: Path) -> None:
    inits = {name: numbers(4) for name in "sbmv"}
    proto = one("BatchNormalization", list("sbmv"), inits=inits)
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


def test_layers_are_named_after_their_weights(tmp_path: Path) -> None:
    inits = {f"layers.1.{role}": numbers(4) for role in ("weight", "bias", "mean", "var")}
    proto = one("BatchNormalization", list(inits), inits=inits)
    (layer,) = read(proto, tmp_path).nodes
    assert isinstance(layer, Node)
    assert layer.name == "layers.1"
