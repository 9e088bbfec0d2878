"""A network as it is (training mode stays), its leak path, and the path's confirmation."""

from __future__ import annotations

import io
from dataclasses import dataclass

import torch
from torch import nn

from leakaudit.confirm.confirm import ConfirmOptions, confirm
from leakaudit.findings import Confirmation, LeakPathReport
from leakaudit.frontends.aten.reader import load_bytes
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph
from leakaudit.leakpath.path import find_leak_path


@dataclass(frozen=True, slots=True)
class CaseAudit:
    """What is claimed of a network, and what came back of it."""

    claimed: LeakPathReport
    found: Confirmation


def exported(module: nn.Module, shape: tuple[int, ...]) -> Graph:
    """The graph of a module in the mode that it is in."""
    example = torch.zeros(shape, dtype=next(module.parameters()).dtype)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(module, (example,)), buffer)
    return load_bytes(buffer.getvalue(), "exported", LoadOptions())


def audit_case(module: nn.Module, shape: tuple[int, ...], dtype: str = "float32") -> CaseAudit:
    """Claims, and their confirmation from gradients of this type."""
    graph = exported(module, shape)
    path = find_leak_path(graph, "cross-entropy")
    options = ConfirmOptions(device="cpu", gradient_dtype=dtype)
    return CaseAudit(path.report, confirm(graph, path, [], options).model)
