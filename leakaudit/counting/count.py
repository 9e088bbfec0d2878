"""From a node of the graph to the counts that are reported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from leakaudit.counting import formulas
from leakaudit.counting.bound import LayerBound, layer_bound
from leakaudit.counting.geometry import ConvolutionGeometry, geometry_of
from leakaudit.findings import Counts, SymbolicCounts, Verdict
from leakaudit.graph import Graph, Node

COUNTINGS = ("exact", "slides")
READS_STORED = "it reads stored numbers only: nothing of the input flows in, nothing was counted"


def count(
    graph: Graph, node: Node, counting: str = "exact", gradient_rank: int | None = None
) -> Counts:
    """Count unknowns and equations of a Conv or Linear node.

    Args:
        graph: The graph of `node`.
        node: A node with weights.
        counting: `exact`, or `slides` for the literal formula of the R-CONV slides, which is wrong
            and kept for comparison. Dense layers are always counted exactly: the slides give no
            formula for them.
        gradient_rank: What is known to limit the rank of the layer's output gradient, if anything.
    """
    layer = replace(geometry_of(graph, node), gradient_rank=gradient_rank)
    slides = counting == "slides" and node.op.is_convolution
    bound = layer_bound(layer)
    if not slides:
        gradient_constraints = bound.gradient_constraints
        weight_constraints = bound.weight_constraints
        rank, gradient_rank = bound.rank, bound.gradient_rank
    else:
        gradient_constraints, weight_constraints = _slides(layer)
        # The slides add the equations up; their "rank" is the sum, capped by what there is.
        rank = min(bound.unknowns, gradient_constraints + weight_constraints)
        gradient_rank = min(bound.unknowns, gradient_constraints)
    return Counts(
        unknowns=bound.unknowns,
        unread=bound.unread,
        gradient_constraints=gradient_constraints,
        weight_constraints=weight_constraints,
        redundant=gradient_constraints + weight_constraints - rank,
        rank_bound=rank,
        gradient_rank_bound=gradient_rank,
        formulas=LayerFormulas(layer, "slides" if slides else "exact"),
    )


def verdict(counts: Counts, counting: str = "exact") -> Verdict:
    """What counting alone says. Only the slides' formula, known to be wrong, says "safe"."""
    if counting == "slides":
        total = counts.gradient_constraints + counts.weight_constraints
        return Verdict.SAFE_BY_SLIDES if counts.unknowns > total else Verdict.FLAGGED
    if counts.unknowns > counts.rank_bound:
        return Verdict.UNDERDETERMINED
    return Verdict.FLAGGED


def bound_of(graph: Graph, node: Node) -> LayerBound:
    """The integer counts and bounds of a node."""
    return layer_bound(geometry_of(graph, node))


@dataclass(frozen=True, slots=True)
class LayerFormulas:
    """Gives the formulas of a layer as text, derived once per design: sympy takes its time."""

    layer: ConvolutionGeometry
    counting: str = "exact"

    def __call__(self) -> SymbolicCounts:
        """Derive them, or recall them."""
        return _symbolic_counts(self.layer, self.counting)


@lru_cache(maxsize=512)
def _symbolic_counts(layer: ConvolutionGeometry, counting: str) -> SymbolicCounts:
    from leakaudit.counting.symbolic import symbolic_layer

    derived = symbolic_layer(layer, counting)
    return SymbolicCounts(
        unknowns=str(derived.unknowns),
        gradient_constraints=str(derived.gradient_constraints),
        weight_constraints=str(derived.weight_constraints),
        margin=str(derived.margin),
        values={symbol.name: value for symbol, value in derived.values.items()},
    )


def _slides(layer: ConvolutionGeometry) -> tuple[int, int]:
    axis = layer.axes[1]
    return (
        formulas.slides_gradient_constraints(
            axis.size, axis.kernel, axis.stride, axis.padding_begin, layer.filters
        ),
        formulas.slides_weight_constraints(axis.kernel, layer.filters),
    )
