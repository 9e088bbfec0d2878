"""ONNX models in memory: the same graph as the file's, the model left as it was."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from places import ROOT

from leakaudit.errors import AuditError
from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.onnx.reader import load, load_proto
from leakaudit.sandbox.limits import Limits

FILES = sorted((ROOT / "sample_models").glob("*.onnx"))
LIGHT = Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"
SIMPLE = Path(onnx.__file__).parent / "backend/test/data/simple"


@pytest.mark.parametrize("path", [*FILES, LIGHT], ids=lambda path: path.stem)
def test_a_model_in_memory_reads_like_its_file(path):
    model = onnx.load(path)
    before = model.SerializeToString(deterministic=True)
    graph, expected = load_proto(model, LoadOptions()), load(str(path), LoadOptions())
    assert model.SerializeToString(deterministic=True) == before
    assert (graph.nodes, graph.tensors) == (expected.nodes, expected.tensors)
    assert (graph.parameters, graph.inputs) == (expected.parameters, expected.inputs)
    assert graph.format == "onnx"
    assert graph.name == (model.graph.name or "model")
    for name in graph.parameters:
        np.testing.assert_array_equal(graph.weights.load(name), expected.weights.load(name))


def test_functions_and_branches_are_replaced_in_a_copy():
    body = [helper.make_node("Relu", ["a"], ["b"])]
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("local", "Own", ["a"], ["b"], body, opsets)
    graph = helper.make_graph(
        [helper.make_node("Own", ["x"], ["y"], domain="local")],
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4])],
    )
    opsets.append(helper.make_opsetid("local", 1))
    model = helper.make_model(graph, opset_imports=opsets, functions=[function])
    branches = [onnx.load(path) for path in sorted(SIMPLE.glob("*/model.onnx"))]
    for given in (model, *branches):
        before = given.SerializeToString(deterministic=True)
        with contextlib.suppress(AuditError):
            load_proto(given, LoadOptions())
        assert given.SerializeToString(deterministic=True) == before
    assert [node.origin for node in load_proto(model, LoadOptions()).nodes] == ["Relu"]
    assert load_proto(model, LoadOptions()).name == "network"


def changed(edit) -> onnx.ModelProto:
    model = onnx.load(FILES[0])
    edit(model)
    return model


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        (onnx.ModelProto(), LoadOptions(), "it holds no network"),
        (changed(lambda model: model.opset_import.pop()), LoadOptions(), "it uses opset 1"),
        (changed(external), LoadOptions(), "a model in memory has no folder"),
        (changed(lambda model: None), LoadOptions(limits=Limits(nodes=1)), "number of its nodes"),
        (changed(lambda model: None), LoadOptions(input_shapes={"y": (1,)}), "no input named 'y'"),
    ],
)
def test_refusals(model, options, reason):
    with pytest.raises(AuditError, match=reason) as caught:
        load_proto(model, options, "mine")
    assert caught.value.target == "mine"
    assert caught.value.remedy
