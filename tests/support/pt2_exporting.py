"""Export a module, read the archive back, and compute its graph from the operators alone."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pytest

from leakaudit.frontends.aten import reader as pt2_model
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph
from leakaudit.operators import (
    ArcTan,
    Conv,
    Elu,
    Identity,
    LeakyRelu,
    Linear,
    PRelu,
    Relu,
    Reshape,
    Sigmoid,
    Softplus,
    Tanh,
    Transpose,
)

torch = pytest.importorskip("torch")
nn = torch.nn
F = torch.nn.functional


def read(model, args, options=None, dynamic_shapes=None, decompose=False, training=False) -> Graph:
    """Export, save and read back without touching a disk."""
    return pt2_model.load_bytes(
        archive(model, args, dynamic_shapes, decompose, training),
        "model.pt2",
        options or LoadOptions(),
    )


def archive(model, args, dynamic_shapes=None, decompose=False, training=False) -> bytes:
    model.train(training)
    program = torch.export.export(model, args, dynamic_shapes=dynamic_shapes)
    if decompose:
        program = program.run_decompositions()
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def run(graph: Graph, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Compute the graph from its operators alone, checking every stated shape and dtype."""
    values = dict(inputs)
    for node in graph.nodes:
        weights = {
            role: torch.from_numpy(graph.weights.load(name)) for role, name in node.parameters
        }
        (x,) = (values[name] for name in node.inputs)
        result = apply(node.op, x, weights, graph.tensors[node.outputs[0]].shape)
        (output,) = node.outputs
        assert tuple(result.shape) == graph.tensors[output].shape
        assert str(result.dtype) == f"torch.{graph.tensors[output].dtype}"
        values[output] = result
    return values


def apply(op, x, weights, shape):
    match op:
        case Conv():
            pads = [
                p
                for pair in zip(op.padding_begin[::-1], op.padding_end[::-1], strict=True)
                for p in pair
            ]
            function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(op.kernel)]
            return function(
                F.pad(x, pads),
                weights["weight"],
                weights.get("bias"),
                stride=op.stride,
                dilation=op.dilation,
                groups=op.groups,
            )
        case Linear():
            weight = weights["weight"] if op.transposed else weights["weight"].T
            assert tuple(weight.shape) == (op.in_features, op.out_features)
            bias = op.beta * weights["bias"] if "bias" in weights else 0
            return op.alpha * (x @ weight) + bias
        case PRelu():
            return F.prelu(x, weights["slope"])
        case LeakyRelu():
            return F.leaky_relu(x, op.slope)
        case Elu():
            return F.elu(x, op.alpha)
        case Reshape():
            return x.reshape(shape)
        case Transpose():
            return x.permute(op.permutation)
        case Identity():
            return x
    functions = {
        Relu: torch.relu,
        Sigmoid: torch.sigmoid,
        Tanh: torch.tanh,
        ArcTan: torch.atan,
        Softplus: F.softplus,
    }
    return functions[type(op)](x)


def assert_same_function(model, x, **kwargs) -> Graph:
    """The graph, computed from its operators, gives what the module gives."""
    graph = read(model, (x,), **kwargs)
    name, (output,) = graph.inputs[0], graph.outputs
    with torch.no_grad():
        expected = model.eval()(x)
        torch.testing.assert_close(run(graph, {name: x})[output], expected)
    return graph


class Everything(nn.Module):
    """One of each understood layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(1, 2), groups=2)
        self.slopes = nn.PReLU(6, init=0.1)
        self.second = nn.Conv2d(6, 8, (2, 3), stride=(2, 1), padding=(1, 0), bias=False)
        self.third = nn.Conv2d(8, 4, 2, padding="valid")
        self.drop = nn.Dropout(0.5)
        self.dense = nn.Linear(4 * 4 * 5, 7)
        self.plain = nn.Linear(7, 3, bias=False)

    def forward(self, x):
        x = self.slopes(self.first(x))
        x = F.leaky_relu(F.elu(self.second(x), 0.7), 0.3)
        x = torch.atan(torch.tanh(self.drop(self.third(x))))
        x = torch.sigmoid(self.dense(x.permute(0, 2, 3, 1).transpose(1, -1).flatten(1)))
        return F.softplus(torch.relu(self.plain(x).unsqueeze(0).squeeze(0)))
