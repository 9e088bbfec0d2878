"""Export a module, read it back, and compare what the graph computes with what torch computes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import torch

from leakaudit.execute import run
from leakaudit.frontends.aten import reader as pt2_model
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph
from leakaudit.operators import Unsupported


def export(model: Any, inputs: Sequence[Any], decompose: bool = False) -> bytes:
    """The archive of a module in the mode that it is in."""
    program = torch.export.export(model, tuple(inputs), strict=False)
    if decompose:
        program = program.run_decompositions()
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def read(model: Any, inputs: Sequence[Any], decompose: bool = False) -> Graph:
    """The graph of a module."""
    return pt2_model.load_bytes(export(model, inputs, decompose), "model.pt2", LoadOptions())


def program(data: bytes) -> Any:
    """The parsed program of an archive, to look at or to change."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return json.loads(archive.read(_program_name(archive)))


def with_program(data: bytes, changed: Any) -> bytes:
    """The archive with another program in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(buffer, "w") as new:
        own = _program_name(archive)
        for name in archive.namelist():
            new.writestr(name, json.dumps(changed) if name == own else archive.read(name))
    return buffer.getvalue()


def _program_name(archive: zipfile.ZipFile) -> str:
    (name,) = (name for name in archive.namelist() if name.endswith("/models/model.json"))
    return name


def unsupported(graph: Graph) -> list[str]:
    """The operators that were not understood, with their reasons."""
    return [
        f"{node.op.kind}: {node.op.reason}"
        for node in graph.nodes
        if isinstance(node.op, Unsupported)
    ]


def assert_computes(graph: Graph, model: Any, inputs: Sequence[Any], **tolerance: float) -> None:
    """The graph, run by our own execution, gives what the module gives, output for output."""
    assert not unsupported(graph)
    with torch.no_grad():
        expected = model(*inputs)
    wanted = list(expected) if isinstance(expected, tuple | list) else [expected]
    weights = {name: torch.from_numpy(graph.weights.load(name)) for name in graph.parameters}
    with torch.no_grad():
        values = run(graph, weights, dict(zip(graph.inputs, inputs, strict=True)))
    found = [values[name] for name in graph.outputs]
    assert len(found) == len(wanted)
    for result, truth in zip(found, wanted, strict=True):
        assert result.shape == truth.shape
        torch.testing.assert_close(result, truth, **tolerance)
