"""Which derivations an operator has: the explicit list, and the default that derives nothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch

from leakaudit.graph import Node
from leakaudit.leakpath.derivations import (
    activation,
    affine,
    arithmetic,
    choice,
    convolution,
    general,
    linear,
    nonlinear,
    normalisation,
    rearrange,
    selection,
)
from leakaudit.leakpath.facts import Derivation
from leakaudit.leakpath.knowledge import Knowledge
from leakaudit.operators import (
    Activation,
    AdaptiveAveragePool,
    Add,
    Attention,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Div,
    Einsum,
    Elementwise,
    Embedding,
    Expand,
    Gather,
    GroupNorm,
    LayerNorm,
    Linear,
    LocalResponseNorm,
    LpNormalization,
    LpPool,
    MatMul,
    MaxPool,
    Mul,
    Operator,
    Pad,
    Pow,
    Reduce,
    Reshape,
    Resize,
    RmsNorm,
    Scale,
    Slice,
    Softmax,
    Split,
    Sub,
    Transpose,
    Unsupported,
    Where,
)


@singledispatch
def derive_own(op: Operator, node: Node, known: Knowledge) -> Iterator[Derivation]:
    """Yield the derivations of one family. The default yields none."""
    return iter(())


@singledispatch
def stop(op: Operator, node: Node, known: Knowledge) -> str | None:
    """Say why the path ends at `node`, or None where the node passes everything on."""
    return f"no derivation is known for {type(op).__name__}"


@stop.register
def _(op: Unsupported, node: Node, known: Knowledge) -> str | None:
    return f"unsupported operator {op.kind}: {op.reason}"


FAMILIES = {
    Activation: activation,
    AdaptiveAveragePool: affine,
    Add: arithmetic,
    Attention: nonlinear,
    AveragePool: affine,
    BatchNorm: normalisation,
    Concat: selection,
    Conv: convolution,
    ConvTranspose: affine,
    Div: arithmetic,
    Einsum: affine,
    Elementwise: nonlinear,
    Embedding: nonlinear,
    Expand: selection,
    Gather: selection,
    GroupNorm: normalisation,
    LayerNorm: normalisation,
    Linear: linear,
    LocalResponseNorm: normalisation,
    LpNormalization: normalisation,
    LpPool: nonlinear,
    MatMul: affine,
    MaxPool: nonlinear,
    Mul: arithmetic,
    Pad: selection,
    Pow: nonlinear,
    Reduce: affine,
    Reshape: rearrange,
    Resize: affine,
    RmsNorm: normalisation,
    Scale: arithmetic,
    Slice: selection,
    Softmax: nonlinear,
    Split: selection,
    Sub: arithmetic,
    Transpose: rearrange,
    Where: choice,
}
for operator, family in FAMILIES.items():
    derive_own.register(operator, family.derive)
    stop.register(operator, family.stop)


def derive(node: Node, known: Knowledge) -> Iterator[Derivation]:
    """Yield every derivation of `node` whose premises are known."""
    if general.activations(known, node):  # a node of stored numbers alone has nothing to reveal
        yield from derive_own(node.op, node, known)
    yield from general.derive(node, known)
