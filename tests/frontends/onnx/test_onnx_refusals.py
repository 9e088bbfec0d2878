"""Nodes that are not understood: the reason is named, and nothing half-made stays behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_reference import FLOAT, model, node, numbers, read
from onnx_running import ints, one, reasons

from leakaudit import operators as ops
from leakaudit.sandbox.helper import Helper

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


def test_nodes_that_differ_in_names_alone_are_inferred_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its own outputs, and what onnx refuses is refused for each of them."""
    asked: list[bytes] = []
    ask = Helper.ask

    def counted(helper: Helper, parts: list[bytes]) -> list[bytes]:
        asked.append(parts[1])
        return ask(helper, parts)

    monkeypatch.setattr(Helper, "ask", counted)
    layers = [node("Relu", ["x" if i == 0 else f"r{i - 1}"], f"r{i}") for i in range(6)]
    adds = [node("Add", ["r5", "r4"], "s"), node("Add", ["s", "s"], "t")]
    bad = [node("Concat", ["t", "w"], f"c{i}", axis=1) for i in range(2)]
    last = node("Add", ["c0", "c1"], "y")
    graph = read(model([*layers, *adds, *bad, last], {"w": numbers(3, 3)}, {"x": [1, 4]}), tmp_path)
    assert [graph.tensors[f"r{i}"].shape for i in range(6)] == [graph.tensors["x"].shape] * 6
    assert asked.count(b"Relu") == 1
    assert asked.count(b"Add") == 2  # of two values, and of one with itself
    assert asked.count(b"Concat") == 1
    assert [type(entry.op) for entry in graph.nodes][-3:] == [ops.Unsupported] * 3
