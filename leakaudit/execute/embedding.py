"""Rows of a table by their numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from leakaudit.execute.interface import Call, Executors, NotExecutable, Outputs
from leakaudit.operators import Embedding


def embedding(op: Embedding, call: Call) -> Outputs:
    """Rows of the table, (.., D); negative indices count from its end, as ONNX and numpy have it.

    Raises:
        NotExecutable: An index lies outside the table.
    """
    table, index = call.parameters["weight"], call.x[0].long()
    rows = table.shape[0]
    # Asked before the lookup: on a GPU an index outside the table ends the whole process.
    if not bool(((index >= -rows) & (index < rows)).all()):
        raise NotExecutable(f"{call.name} (an index lies outside its table of {rows} rows)")
    return (F.embedding(torch.where(index < 0, index + rows, index), table),)


EXECUTORS: Executors = {Embedding: embedding}
