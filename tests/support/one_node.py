"""One operator at a time: leakaudit's execution, and ONNX's reference evaluator beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import torch
from onnx import helper

from leakaudit.execute import run
from leakaudit.graph import Graph, Node, Tensor
from leakaudit.operators import Operator


class NoWeights:
    """Stands where a graph needs a source of stored numbers; execution is handed them."""

    def load(self, name: str) -> Any:
        raise KeyError(name)


def execute_one(
    op: Operator,
    inputs: Sequence[torch.Tensor],
    shapes: Sequence[Sequence[int]],
    parameters: Mapping[str, torch.Tensor] | None = None,
    stored: Sequence[int] = (),
) -> tuple[torch.Tensor, ...]:
    """Run a graph of one node.

    Args:
        op: The operator.
        inputs: Its inputs.
        shapes: What the graph states for its outputs.
        parameters: By role.
        stored: Which of the inputs are parameters and no activations.
    """
    parameters = parameters or {}
    names = [f"x{index}" for index in range(len(inputs))]
    outputs = [f"y{index}" for index in range(len(shapes))]
    activations = [name for index, name in enumerate(names) if index not in stored]
    tensors = {
        **{
            name: Tensor(name, tuple(x.shape), str(x.dtype).removeprefix("torch."))
            for name, x in zip(names, inputs, strict=True)
            if name in activations
        },
        **{
            name: Tensor(name, tuple(shape), str(inputs[0].dtype).removeprefix("torch."))
            for name, shape in zip(outputs, shapes, strict=True)
        },
    }
    roles = tuple((role, f"p.{role}") for role in parameters)
    graph = Graph(
        name="one",
        format="test",
        inputs=tuple(activations),
        outputs=tuple(outputs),
        tensors=tensors,
        parameters={},
        nodes=(Node("layer", op, tuple(names), tuple(outputs), roles),),
        weights=NoWeights(),
    )
    named = dict(zip(names, inputs, strict=True))
    weights = {f"p.{role}": value for role, value in parameters.items()}
    weights |= {name: x for name, x in named.items() if name not in activations}
    values = run(graph, weights, {name: named[name] for name in activations})
    return tuple(values[name] for name in outputs)


def onnx_model(
    kind: str,
    inputs: Sequence[torch.Tensor | None],
    outputs: int = 1,
    opset: int = 21,
    **attributes: Any,
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A model of one ONNX node and what to feed it. None stands for an input that is left out."""
    feeds = {f"x{index}": x.detach().numpy() for index, x in enumerate(inputs) if x is not None}
    names = [f"x{index}" if x is not None else "" for index, x in enumerate(inputs)]
    results = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(kind, names, results, **attributes)
    kinds = {name: helper.np_dtype_to_tensor_dtype(x.dtype) for name, x in feeds.items()}
    element = next(iter(kinds.values()))
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, kinds[name], x.shape) for name, x in feeds.items()],
        [helper.make_tensor_value_info(name, element, None) for name in results],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), feeds


def onnx_reference(
    kind: str,
    inputs: Sequence[torch.Tensor | None],
    outputs: int = 1,
    opset: int = 21,
    **attributes: Any,
) -> tuple[torch.Tensor, ...]:
    """What ONNX's own reference evaluator computes for one node."""
    model, feeds = onnx_model(kind, inputs, outputs, opset, **attributes)
    results = onnx.reference.ReferenceEvaluator(model).run(None, feeds)
    return tuple(torch.from_numpy(np.array(result)) for result in results)


def onnxruntime_reference(
    kind: str, inputs: Sequence[torch.Tensor | None], opset: int = 21, **attributes: Any
) -> tuple[torch.Tensor, ...]:
    """What onnxruntime computes for one node, in float32."""
    model, feeds = onnx_model(kind, inputs, 1, opset, **attributes)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return tuple(torch.from_numpy(result) for result in session.run(None, feeds))


def shapes_of(tensors: Sequence[torch.Tensor]) -> list[tuple[int, ...]]:
    """The shape of each."""
    return [tuple(x.shape) for x in tensors]
