"""`advise --write`: the changed network as an ONNX file for review."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from leakaudit.advice.rebuild import pooling
from leakaudit.advice.search import Advice, Candidate
from leakaudit.advice.weights import ResampledWeights
from leakaudit.counting.count import bound_of
from leakaudit.errors import AuditError, UsageError
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph
from leakaudit.operators import Reshape

if TYPE_CHECKING:
    from leakaudit.frontends.onnx.edit import OnnxEdit


def check_writable(target: str, graph_format: str, path: Path) -> None:
    """Refuse early what `write` would refuse.

    Raises:
        UsageError: The target is no ONNX file, or `path` exists or does not end in .onnx.
    """
    if graph_format != "onnx":
        raise UsageError(f"--write changes ONNX files only, and {target} is not one")
    if path.suffix.lower() != ".onnx":
        raise UsageError(f"--write {path}: give it a name that ends in .onnx")
    if path.exists() or path.is_symlink():
        raise UsageError(f"--write {path}: it exists, and is never overwritten; name another file")


def best_writable(candidates: Iterable[Candidate]) -> Candidate:
    """The best change that a file can state.

    Raises:
        UsageError: There is none.
    """
    # A change that removes the layer's flag goes before one that only closes the path.
    usable = [c for c in candidates if c.change.reshapes]
    if not usable:
        raise UsageError(
            "--write: no change found can be stated in an ONNX file (what is frozen is said at "
            "training, and to leakaudit with --frozen)"
        )
    return min(usable, key=lambda c: (c.still_flagged, *c.rank))


def write(
    target: str, advice: Advice, candidate: Candidate, path: Path, options: LoadOptions, seed: int
) -> tuple[str, ...]:
    """Write the changed network, after reading it back and comparing it with the rebuilt graph.

    Args:
        target: The original ONNX file, which is only read.
        advice: The advice about it.
        candidate: The change.
        path: A file that does not exist.
        options: How the target was read.
        seed: For the weights of new shapes.

    Returns:
        The parameters that must be named with --frozen when the file is audited.

    Raises:
        UsageError: The file exists or cannot be written, or the model cannot be edited.
        AuditError: The target cannot be read.
    """
    from leakaudit.frontends.onnx import edit as onnx_edit

    check_writable(target, advice.graph.format, path)
    data = onnx_edit.edited(target, _edit(advice.graph, candidate, seed), advice.graph.weights)
    frozen: tuple[str, ...] = ()
    if candidate.change.freeze:
        frozen = (advice.graph.node(candidate.change.layer).parameter("weight") or "",)
    _read_back(data, candidate, replace(options, frozen=(*options.frozen, *frozen)))
    try:
        with path.open("xb") as stream:  # exclusive: also where the file appears meanwhile
            stream.write(data)
    except FileExistsError as error:
        raise UsageError(f"--write {path}: it exists, and is never overwritten") from error
    except OSError as error:
        raise UsageError(f"--write {path}: it cannot be written ({error.strerror})") from error
    return frozen


def _edit(graph: Graph, candidate: Candidate, seed: int) -> OnnxEdit:
    from leakaudit.frontends.onnx import edit as onnx_edit

    change, changed = candidate.change, candidate.graph
    layer = graph.node(change.layer)
    weights = ResampledWeights(graph.weights, changed.parameters, seed)
    where = pooling(graph, layer) if change.pool else None
    return onnx_edit.OnnxEdit(
        tensors={
            name: weights.load(name)
            for name, stored in changed.parameters.items()
            if stored.shape != graph.parameters[name].shape
        },
        convolution=(layer.parameter("weight") or "", change.op) if change.op else None,
        dropped_bias=layer.parameter("bias") if change.drop_bias else None,
        pooled=(where.tensor, change.pool) if where else None,
        pooled_name=where.name if where else "",
        reshaped={
            output: changed.tensors[output].shape
            for node in graph.nodes
            if isinstance(node.op, Reshape)
            for output in node.outputs
            if changed.tensors[output].shape != graph.tensors[output].shape
        },
    )


def _read_back(data: bytes, candidate: Candidate, options: LoadOptions) -> None:
    """Check that the file says what the rebuilt graph says.

    Raises:
        UsageError: It does not: something in the file states sizes in a way that was not changed.
    """
    from leakaudit.frontends.onnx import reader as onnx_model

    problem = "something behind the layer states its sizes in the file; change the model's source"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "changed.onnx")
        file.write_bytes(data)
        try:
            read = onnx_model.load(str(file), options)
        except AuditError as error:
            raise UsageError(f"--write: {error.reason}; {problem}") from error
    layers = {node.name: node for node in read.nodes}
    same = all(
        name in read.tensors and read.tensors[name].shape == tensor.shape
        for name, tensor in candidate.graph.tensors.items()
    )
    layer = layers.get(candidate.change.layer)
    if not same or layer is None:
        raise UsageError(f"--write: the changed file reads back differently: {problem}")
    if bound_of(read, layer).flagged != candidate.still_flagged:
        raise UsageError(f"--write: the changed file counts differently: {problem}")
