"""Which derivations an operator has: the explicit list, and the default that derives nothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch

from leakaudit.graph import Node
from leakaudit.graph.operators import (
    Activation,
    Conv,
    Linear,
    Operator,
    Reshape,
    Transpose,
    Unsupported,
)
from leakaudit.leakpath.derivations import activation, convolution, linear, rearrange
from leakaudit.leakpath.facts import Derivation
from leakaudit.leakpath.knowledge import Knowledge


@singledispatch
def derive(op: Operator, node: Node, known: Knowledge) -> Iterator[Derivation]:
    """Yield every derivation of `node` whose premises are known. The default yields none."""
    return iter(())


@singledispatch
def stop(op: Operator, node: Node, known: Knowledge) -> str | None:
    """Say why the path ends at `node`, or None where the node passes everything on."""
    return f"no derivation is known for {type(op).__name__}"


@stop.register
def _(op: Unsupported, node: Node, known: Knowledge) -> str | None:
    return f"unsupported operator {op.kind}: {op.reason}"


FAMILIES = {
    Linear: linear,
    Conv: convolution,
    Activation: activation,
    Reshape: rearrange,
    Transpose: rearrange,
}
for operator, family in FAMILIES.items():
    derive.register(operator, family.derive)
    stop.register(operator, family.stop)
