"""Functions of the file, and branches of a constant condition, are put in their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_reference import FLOAT, Inits, model, node, numbers, read
from onnx_running import assert_runs_like_onnxruntime, ints, reasons

from leakaudit import operators as ops


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
