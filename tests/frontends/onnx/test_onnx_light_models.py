"""Published networks without their weights: read whole, counted, audited, computed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from leakaudit.execute import run
from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.onnx.reader import load
from leakaudit.operators import Conv, ConvTranspose, Linear, Unsupported
from leakaudit.pipeline.audit import AuditOptions, audit
from leakaudit.rules.registry import load_rules

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))
# More than five seconds each: most of it to make up tens of millions of weights.
SLOW = (
    "light_bvlc_alexnet",
    "light_densenet121",
    "light_inception_v1",
    "light_vgg19",
    "light_zfnet512",
)


def test_there_are_light_models() -> None:
    assert len(LIGHT) >= 9


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_model_is_understood_and_audited(path: Path) -> None:
    kinds = [entry.op_type for entry in onnx.load(path).graph.node]
    graph = load(str(path), LoadOptions())
    assert [entry.op for entry in graph.nodes if isinstance(entry.op, Unsupported)] == []
    assert sum(isinstance(entry.op, Conv) for entry in graph.nodes) == kinds.count("Conv") > 0
    assert sum(isinstance(entry.op, Linear) for entry in graph.nodes) == kinds.count("Gemm")
    assert not any(isinstance(entry.op, ConvTranspose) for entry in graph.nodes)
    report = audit(str(path), AuditOptions(rules=load_rules()))
    assert (report.error, report.complete, report.skipped) == (None, True, ())
    assert len(report.layers) == kinds.count("Conv") + kinds.count("Gemm")
    assert report.leak_path is not None
    assert report.leak_path.reaches_input or report.leak_path.stopped


MEMORY = """
import resource, sys
from leakaudit.pipeline.audit import AuditOptions, audit
from leakaudit.rules.registry import load_rules

def audited(path):
    assert audit(path, AuditOptions(rules=load_rules())).complete
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

print(audited(sys.argv[1]), audited(sys.argv[2]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss counts KiB on Linux")
def test_weights_that_a_file_only_describes_take_no_memory() -> None:
    """VGG-19 fills 548 MiB of weights at run time; its file, and what an audit adds, are small."""
    files = [path for path in LIGHT if path.stem in ("light_squeezenet", "light_vgg19")]
    answer = subprocess.run(
        [sys.executable, "-c", MEMORY, *map(str, files)], capture_output=True, text=True, check=True
    )
    before, after = map(int, answer.stdout.split())
    assert after - before < 16 * 1024


def with_random_weights(path: Path) -> onnx.ModelProto:
    """The model with numbers in place of the constants that its weights are filled with."""
    model = onnx.load(path)
    random = np.random.default_rng(0)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.op_type != "ConstantOfShape":
            model.graph.node.append(node)
            continue
        shape = tuple(int(n) for n in numpy_helper.to_array(stored[node.input[0]]))
        array = random.uniform(0.5, 1.5, shape)
        if len(shape) > 1:
            array = random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        array = array.astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
    return model


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] if path.stem in SLOW else []) for path in LIGHT],
    ids=lambda path: path.stem,
)
def test_light_model_computes_like_onnxruntime(path: Path, tmp_path: Path) -> None:
    model = with_random_weights(path)
    file = tmp_path / "net.onnx"
    onnx.save(model, file)
    graph = load(str(file), LoadOptions())
    (x,) = graph.inputs
    feed = np.random.default_rng(1).uniform(0, 1, graph.tensors[x].shape).astype(np.float32)
    weights = {name: torch.tensor(graph.weights.load(name)) for name in graph.parameters}
    with torch.no_grad():
        values = run(graph, weights, {x: torch.from_numpy(feed)})
    # The probabilities, and what goes into the softmax: those may round to one certain class.
    wanted = [graph.outputs[0], graph.producers[graph.outputs[0]].inputs[0]]
    inside = {output for node in model.graph.node for output in node.output}
    wanted = [name for name in wanted if name in inside]
    declared = {value.name for value in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_value_info(name, onnx.TypeProto())
        for name in wanted
        if name not in declared
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for name, expected in zip(wanted, session.run(wanted, {x: feed}), strict=True):
        scale = np.abs(expected).max()
        assert expected.std() > 0
        np.testing.assert_allclose(values[name] / scale, expected / scale, atol=1e-4, rtol=0)
