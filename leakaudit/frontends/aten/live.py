"""The program of a live module: torch's export schema and the tensors themselves, no file between.

Saving a large module and reading it back copies every weight several times. What the reader wants
of the file is the record of the graph, which torch's serialiser gives without the weights, and
where each weight lies. The serialiser is the same code that `torch.export.save` runs, so the
record is the file's, key by key; its interface is private, and unchanged from torch 2.11 to 2.13.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch._export.serde import schema, serialize
from torch.export import ExportedProgram

from leakaudit.errors import AuditError
from leakaudit.frontends.aten.archive import StoredTensor, numpy_dtype, readable
from leakaudit.frontends.aten.schema import EXPORT_REMEDY
from leakaudit.frontends.interface import require_shape
from leakaudit.sandbox.limits import Limits


@dataclass(frozen=True, slots=True)
class LiveProgram:
    """An exported program and the tensors that it reads, all in the memory of this process.

    Attributes:
        record: The graph in torch's export schema.
        held: The tensors themselves, those of the module and not copies.
    """

    target: str
    record: dict[str, Any]
    tensors: Mapping[str, StoredTensor]
    held: Mapping[str, torch.Tensor]

    def program(self) -> dict[str, Any]:
        return self.record

    def load(self, name: str) -> npt.NDArray[Any]:
        stored = readable(self.target, self.tensors, name)
        dtype = numpy_dtype(self.target, name, stored.dtype)
        tensor = self.held[name].detach()
        if tensor.is_meta and 0 not in stored.shape:
            raise AuditError(
                self.target, f"tensor {name!r}: it has no numbers (a meta tensor)", EXPORT_REMEDY
            )
        if 0 in stored.shape:
            return np.zeros(stored.shape, dtype)
        flat = tensor.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
        # Bytes: numpy and torch share no type for bfloat16 and the eighths of a word.
        numbers: npt.NDArray[Any] = flat.view(torch.uint8).numpy().view(dtype)
        return numbers.reshape(stored.shape).copy()


def live_program(target: str, program: ExportedProgram, limits: Limits) -> LiveProgram:
    """State a program in the words of torch's export schema.

    Raises:
        AuditError: A tensor is above a limit.
        Exception: Whatever torch's serialiser raises for what it cannot state.
    """
    # The tree of calls says how a dict of outputs is put together, which no reader asks.
    serializer = serialize.GraphModuleSerializer(program.graph_signature, [])
    to_dict: Any = serialize._dataclass_to_dict  # torch states no types for it
    graph_module = to_dict(serializer.serialize(program.graph_module))
    record = {"graph_module": graph_module, "schema_version": {"major": schema.SCHEMA_VERSION[0]}}
    plain = json.loads(json.dumps(record, cls=serialize.EnumEncoder, allow_nan=False))
    held = {
        name: tensor
        for name, tensor in {**program.state_dict, **program.constants}.items()
        if isinstance(tensor, torch.Tensor)
    }
    for name, tensor in held.items():
        require_shape(target, name, tensor.shape, limits)
    return LiveProgram(target, plain, {n: _stored(t) for n, t in held.items()}, held)


def _stored(tensor: torch.Tensor) -> StoredTensor:
    """Where a tensor lies; tensors that share all of it are tied."""
    subclass = type(tensor.data) is not torch.Tensor
    strided = tensor.layout is torch.strided and not subclass
    return StoredTensor(
        member=f"{tensor.device}:{tensor.untyped_storage().data_ptr()}" if strided else "",
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tuple(tensor.shape),
        strides=tensor.stride() if strided else (),
        offset=int(tensor.storage_offset()) if strided else 0,
        pickled=not strided,
    )
