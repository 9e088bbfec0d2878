"""Tables whose rows are read by index: in ONNX a Gather, and no operator of their own."""

from __future__ import annotations

import onnx

from leakaudit import operators as ops
from leakaudit.frontends.build import NotUnderstoodError, axis_of
from leakaudit.frontends.onnx.context import Builders, Context
from leakaudit.frontends.onnx.inputs import FLOATS
from leakaudit.frontends.onnx.node import integer


def embedding(context: Context, node: onnx.NodeProto) -> None:
    """Rows of a stored table by an index that is computed at run time."""
    table = context.weight(context.optional(node, 0), "table")
    index = context.activation(node, 1)
    if len(table.shape) != 2 or axis_of(integer(node, "axis", 0), 2) != 0:
        raise NotUnderstoodError("it reads other things than rows of a matrix")
    if context.dtype(index) in FLOATS | {"bool"}:
        raise NotUnderstoodError("its index is not of integers")
    context.layer(node, ops.Embedding(), (index,), (("weight", table),))


BUILDERS: Builders = {}
