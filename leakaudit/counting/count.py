"""The counts of one layer as reports have them, and the verdict that counting alone allows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from leakaudit.counting.bound import LayerBound, layer_bound
from leakaudit.counting.geometry import ConvolutionGeometry, geometry_of
from leakaudit.findings import Counts, SymbolicCounts, Verdict
from leakaudit.graph import Graph, Node

READS_STORED = "it reads stored numbers only: nothing of the input flows in, nothing was counted"


def count(graph: Graph, node: Node, gradient_rank: int | None = None) -> Counts:
    """Count unknowns and equations of a layer.

    `gradient_rank` is what is known to limit the rank of its output gradient, if anything.
    """
    layer = replace(geometry_of(graph, node), gradient_rank=gradient_rank)
    bound = layer_bound(layer)
    return Counts(
        unknowns=bound.unknowns,
        unread=bound.unread,
        gradient_constraints=bound.gradient_constraints,
        weight_constraints=bound.weight_constraints,
        redundant=bound.gradient_constraints + bound.weight_constraints - bound.rank,
        rank_bound=bound.rank,
        gradient_rank_bound=bound.gradient_rank,
        formulas=LayerFormulas(layer),
    )


def verdict(counts: Counts) -> Verdict:
    """What counting alone says."""
    return Verdict.FLAGGED if counts.fixes_input else Verdict.UNDERDETERMINED


def bound_of(graph: Graph, node: Node) -> LayerBound:
    """The integer counts and bounds of a node."""
    return layer_bound(geometry_of(graph, node))


@dataclass(frozen=True, slots=True)
class LayerFormulas:
    """Gives the formulas of a layer as text, derived once per design: sympy takes its time."""

    layer: ConvolutionGeometry

    def __call__(self) -> SymbolicCounts:
        """Derive them, or recall them."""
        return _symbolic_counts(self.layer)


@lru_cache(maxsize=512)
def _symbolic_counts(layer: ConvolutionGeometry) -> SymbolicCounts:
    from leakaudit.counting.symbolic import symbolic_layer

    derived = symbolic_layer(layer)
    return SymbolicCounts(
        unknowns=str(derived.unknowns),
        gradient_constraints=str(derived.gradient_constraints),
        weight_constraints=str(derived.weight_constraints),
        margin=str(derived.margin),
        values={symbol.name: value for symbol, value in derived.values.items()},
    )
