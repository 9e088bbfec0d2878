"""The test cases that onnx ships for its backends, run through the frontend and the execution."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

from leakaudit.errors import AuditError
from leakaudit.execute import NotExecutable, run
from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.onnx.reader import load
from leakaudit.graph import Graph
from leakaudit.operators import Unsupported

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
# Cases state tolerances for float32. We compute half precision in float32 and they do not.
HALF = {"float16": (4e-3, 1e-3), "bfloat16": (2e-2, 1e-2)}


@dataclass(frozen=True)
class Case:
    """A model with its inputs and outputs.

    `variant`: `live` as it is; `stored` with every input but the first floating one turned into an
    initializer, as networks have it; `first` as `stored`, and only the first output.
    """

    name: str
    variant: str
    model: onnx.ModelProto
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    rtol: float
    atol: float


@dataclass(frozen=True)
class Outcome:
    """What became of a case: `ran`, `refused` (with the reason) or `wrong`."""

    name: str
    status: str
    text: str = ""
    graph: Graph | None = None


@cache
def loaded(kind: str) -> tuple[Any, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases divide by zero on purpose
        return tuple(load_model_tests(kind=kind))


def cases(kind: str, part: int = 0, parts: int = 1) -> Iterator[Case]:
    """Every variant of every `parts`-th case of a kind."""
    for entry in loaded(kind)[part::parts]:
        model, inputs, outputs = _read(entry)
        names = [value.name for value in _inputs(model)]
        results = [value.name for value in model.graph.output]
        case = Case(
            entry.name,
            "live",
            model,
            dict(zip(names, inputs, strict=False)),
            dict(zip(results, outputs, strict=False)),
            entry.rtol,
            entry.atol,
        )
        yield case
        if len(names) > 1:
            yield _stored(case, "stored")
        if len(results) > 1:
            yield _stored(case, "first")


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def _read(entry: Any) -> tuple[onnx.ModelProto, list[Any], list[Any]]:
    if entry.model_dir is None:
        inputs, outputs = entry.data_sets[0]
        return entry.model, [_array(x) for x in inputs], [_array(x) for x in outputs]
    folder = Path(entry.model_dir)
    model = onnx.load(folder / "model.onnx")

    def arrays(what: str, values: Any) -> list[Any]:
        found = []
        for index, value in enumerate(values):
            tensor = onnx.TensorProto()
            data = (folder / "test_data_set_0" / f"{what}_{index}.pb").read_bytes()
            if value.type.WhichOneof("value") != "tensor_type":
                return []
            tensor.ParseFromString(data)
            found.append(numpy_helper.to_array(tensor))
        return found

    return model, arrays("input", _inputs(model)), arrays("output", model.graph.output)


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _stored(case: Case, variant: str) -> Case:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    values = _inputs(model)
    live = [value for value in values if value.type.tensor_type.elem_type in FLOATS] or values
    if not live:
        return case
    for name, array in case.inputs.items():
        array = None if array is None or isinstance(array, list) else np.asarray(array)
        if name != live[0].name and array is not None and array.dtype != object:
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    if variant == "first":
        del model.graph.output[1:]
    return Case(case.name, variant, model, case.inputs, case.outputs, case.rtol, case.atol)


def outcome(case: Case, folder: Path) -> Outcome:
    """Read the case's model and compute its outputs. What neither works nor refuses raises."""
    name = f"{case.name}/{case.variant}"
    path = folder / f"{case.name}-{case.variant}.onnx"
    onnx.save(case.model, path)
    try:
        graph = load(str(path), LoadOptions())
    except AuditError as error:
        return Outcome(name, "refused", str(error))
    finally:
        path.unlink()
    refused = [node.op for node in graph.nodes if isinstance(node.op, Unsupported)]
    if refused:
        return Outcome(name, "refused", "; ".join(f"{op.kind}: {op.reason}" for op in refused))
    weights = {entry: tensor(graph.weights.load(entry)) for entry in graph.parameters}
    feeds = {entry: tensor(case.inputs[entry]) for entry in graph.inputs}
    try:
        values = run(graph, weights, feeds)
    except NotExecutable as error:
        return Outcome(name, "wrong", str(error), graph)
    for value in case.model.graph.output:
        expected = np.asarray(case.outputs[value.name])
        made = values.get(value.name)
        found = graph.weights.load(value.name) if made is None else made.numpy()
        try:
            assert found.shape == expected.shape
            rtol, atol = HALF.get(expected.dtype.name, (0.0, 0.0))
            with np.errstate(all="ignore"):
                np.testing.assert_allclose(
                    found.astype(expected.dtype).astype(np.float64),
                    expected.astype(np.float64),
                    rtol=max(rtol, case.rtol),
                    atol=max(atol, case.atol),
                )
        except AssertionError as error:
            return Outcome(name, "wrong", f"{value.name}: {error}", graph)
    return Outcome(name, "ran", graph=graph)


def tensor(array: Any) -> torch.Tensor:
    array = np.asarray(array)
    return torch.from_numpy(array.astype(np.float32) if array.dtype.name in HALF else array.copy())
