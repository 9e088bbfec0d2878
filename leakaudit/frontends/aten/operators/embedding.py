"""Tables whose rows are read by index."""

from __future__ import annotations

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Call, Layer, by_target
from leakaudit.frontends.build import NotUnderstoodError


def _embedding(call: Call) -> Layer:
    if call.flag("scale_grad_by_freq", False):
        raise NotUnderstoodError("it scales its gradient by how often an index occurs")
    weight = call.plain_weight("weight")
    return Layer(ops.Embedding(), (call.operand("indices").name,), (("weight", weight.name),))


BUILDERS = by_target({"embedding": _embedding})
