"""One-node models, and their graphs run by our execution beside onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx_reference import Inits, model, node, numbers, onnxruntime_values

from leakaudit import operators as ops
from leakaudit.execute import run
from leakaudit.graph import Graph


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


def reasons(graph: Graph) -> list[str]:
    return [e.op.reason for e in graph.nodes if isinstance(e.op, ops.Unsupported)]
