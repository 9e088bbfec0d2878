"""Small ONNX models, and every tensor of a graph computed twice: by onnxruntime from the file, by
torch from the graph that the frontend read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from leakaudit import operators as ops
from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.onnx.reader import load
from leakaudit.graph import Graph, Node

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
