"""Operators that are affine in their one activation and lose values: gradients pass back."""

from __future__ import annotations

from collections.abc import Iterator

from leakaudit.graph import Node
from leakaudit.leakpath.derivations.general import (
    activations,
    affine_gradients,
    shape,
    unknown_factors,
)
from leakaudit.leakpath.facts import Derivation
from leakaudit.leakpath.knowledge import Knowledge
from leakaudit.operators import (
    AdaptiveAveragePool,
    AveragePool,
    ConvTranspose,
    Einsum,
    MatMul,
    Operator,
    Reduce,
    Resize,
)


def derive(op: Operator, node: Node, known: Knowledge) -> Iterator[Derivation]:
    """The gradient of the input, where the operator is affine in it."""
    if isinstance(op, Reduce) and op.function not in ("sum", "mean"):
        return
    indices = activations(known, node)
    if len(indices) == 1:
        yield from affine_gradients(node, known, indices[0])


def stop(op: Operator, node: Node, known: Knowledge) -> str | None:
    """Why the value of the input does not follow."""
    size_in = " x ".join(map(str, shape(known, node.inputs[0])))
    size_out = " x ".join(map(str, shape(known, node.outputs[0])))
    match op:
        case AveragePool() | AdaptiveAveragePool() | Reduce(function="mean" | "sum"):
            return f"averaging merges {size_in} values into {size_out}"
        case Reduce():
            return f"it reduces {size_in} values to {size_out}, and where they stood is not known"
        case MatMul() | Einsum() if len(activations(known, node)) > 1:
            return unknown_factors(known, node)
        case ConvTranspose() | MatMul() | Einsum() | Resize():
            return "its linear equations are not solved here; only its gradient passes"
        case _:
            return None
