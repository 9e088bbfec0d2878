"""The smallest change of each design parameter after which a layer is no longer flagged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from leakaudit.advice.change import Change, families
from leakaudit.advice.propagate import RefusedChange
from leakaudit.advice.rebuild import rebuild, stored_numbers, trained_numbers
from leakaudit.counting.bound import LayerBound, layer_bound
from leakaudit.counting.count import bound_of
from leakaudit.counting.geometry import ConvolutionGeometry, geometry_of
from leakaudit.errors import UsageError
from leakaudit.facts.fact import value
from leakaudit.findings import Confirmation, PathStop
from leakaudit.graph import Graph, Node
from leakaudit.leakpath.path import LeakPath, find_leak_path
from leakaudit.operators import Unsupported

REFUSALS = 256  # as many values in a row as any number of groups behind a layer can refuse


@dataclass(frozen=True, slots=True)
class Candidate:
    """A change that removes the flag, re-audited.

    Attributes:
        change: What to change.
        graph: The changed network; its weight source does not know the new shapes.
        path: Its leak path.
        bound: The changed layer's counts.
        parameters: Stored numbers of the network, before and after.
        trained: Of these the trained ones, before and after.
        closes_path: No value of the network's input follows any more, and one did.
        reaches_input: A value of the network's input still follows, in whatever quality.
        stops: Where the path stops now.
        newly_flagged: Other layers that the change makes determined.
        confirmation: Evidence, None where nothing was run.
    """

    change: Change
    graph: Graph
    path: LeakPath
    bound: LayerBound
    parameters: tuple[int, int]
    trained: tuple[int, int]
    closes_path: bool
    reaches_input: bool
    stops: tuple[PathStop, ...]
    newly_flagged: tuple[str, ...]
    confirmation: Confirmation | None = None

    @property
    def still_flagged(self) -> bool:
        """Whether the layer's own input is still fixed: then the change only closes the path."""
        return self.bound.flagged

    @property
    def rank(self) -> tuple[bool, bool, float, float]:
        """What candidates are ordered by, the best first."""
        return (
            self.reaches_input,
            self.still_flagged,
            self.relative_change,
            self.determined_fraction,
        )

    @property
    def relative_change(self) -> float:
        """How much of what is trained the change adds or takes away."""
        before, after = self.trained
        return abs(after - before) / max(before, 1)

    @property
    def determined_fraction(self) -> float:
        """rho of the changed layer."""
        return self.bound.rank / self.bound.unknowns


@dataclass(frozen=True, slots=True)
class LayerAdvice:
    """What can be done about one flagged layer.

    Attributes:
        layer: The layer.
        bound: Its counts as it is.
        candidates: The smallest change of each design parameter, best first.
        without: Per design parameter that offers no change, why.
    """

    layer: str
    bound: LayerBound
    candidates: tuple[Candidate, ...]
    without: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Advice:
    """Advice for a model.

    Attributes:
        graph: The model as it is.
        layers: One entry per flagged layer, in the order of the network.
        reaches_input: Whether a value of the network's input follows as it is.
        complete: Whether every operator of it was understood.
    """

    graph: Graph
    layers: tuple[LayerAdvice, ...]
    reaches_input: bool
    complete: bool


def advise(graph: Graph, loss: str, layer: str | None = None, max_rho: float = 1.0) -> Advice:
    """Find the smallest changes for every flagged layer.

    Args:
        graph: The network.
        loss: Its loss, see `find_leak_path`.
        layer: Only this layer.
        max_rho: How much of the input of a changed layer may stay determined.

    Raises:
        UsageError: There is no such layer with weights.
    """
    nodes = [node for node in graph.nodes if node.op.is_layer]
    names = [node.name for node in nodes]
    if layer is not None and layer not in names:
        raise UsageError(
            f"--layer {layer}: {graph.name} has no such layer with weights; "
            f"it has {', '.join(names)}"
        )
    path = find_leak_path(graph, loss)
    reaches = reaches_input(graph, path)
    search = _Search(graph, loss, reaches, max_rho)
    return Advice(
        graph,
        tuple(
            search.layer(node)
            for node in nodes
            if node.inputs[0] in graph.depend_on_inputs
            and bound_of(graph, node).flagged
            and layer in (None, node.name)
        ),
        reaches,
        not any(isinstance(node.op, Unsupported) for node in graph.nodes),
    )


def reaches_input(graph: Graph, path: LeakPath) -> bool:
    """Whether a value of a graph input follows, in whatever quality."""
    return any(path.knowledge.quality(value(name)) is not None for name in graph.inputs)


def changed_geometry(geometry: ConvolutionGeometry, change: Change) -> ConvolutionGeometry:
    """The layer as counting sees it after a change of the layer itself."""
    if change.filters is not None:
        geometry = replace(geometry, filters=change.filters)
    if change.freeze:
        geometry = replace(geometry, observed=False)
    if change.op is not None:
        op = change.op
        batch, *spatial = geometry.axes
        axes = op.spatial_axes([axis.size for axis in spatial])
        geometry = replace(geometry, axes=(batch, *axes), groups=op.groups)
    return geometry


@dataclass(frozen=True, slots=True)
class _Search:
    graph: Graph
    loss: str
    reaches: bool
    max_rho: float

    def layer(self, node: Node) -> LayerAdvice:
        """Search every design parameter of one layer."""
        found: list[Candidate] = []
        without: list[tuple[str, str]] = []
        for parameter, changes in families(self.graph, node):
            outcome = self._smallest(node, changes)
            if isinstance(outcome, Candidate):
                found.append(outcome)
            else:
                without.append((parameter, outcome))
        found.sort(key=lambda candidate: candidate.rank)
        return LayerAdvice(node.name, bound_of(self.graph, node), tuple(found), tuple(without))

    def _smallest(self, node: Node, changes: Iterator[Change]) -> Candidate | str:
        """The first change that works, or why none does."""
        refusals: list[str] = []
        tried = 0
        for change in changes:
            tried += 1
            if not self._could_work(node, change):
                continue
            try:
                changed = rebuild(self.graph, change)
            except RefusedChange as error:
                refusals.append(f"{change.text}: {error}")
                if len(refusals) == REFUSALS:
                    break
                continue
            candidate = self._audit(change, changed)
            if self._works(candidate):
                return candidate
        if refusals:
            return refusals[0]
        return f"no value removes the flag ({tried} tried)" if tried else "it has no other value"

    def _could_work(self, node: Node, change: Change) -> bool:
        """By counting alone, before the graph is rebuilt and the leak path searched."""
        if change.pool or change.drop_bias:
            return self.reaches
        geometry = changed_geometry(geometry_of(self.graph, node), change)
        if min(axis.positions for axis in geometry.axes) < 1:
            return False
        return self._open_enough(layer_bound(geometry))

    def _works(self, candidate: Candidate) -> bool:
        return self._open_enough(candidate.bound) or (
            candidate.closes_path and bool(candidate.change.pool or candidate.change.drop_bias)
        )

    def _open_enough(self, bound: LayerBound) -> bool:
        return not bound.flagged and bound.rank <= self.max_rho * bound.unknowns

    def _audit(self, change: Change, changed: Graph) -> Candidate:
        path = find_leak_path(changed, self.loss)
        reaches = reaches_input(changed, path)
        return Candidate(
            change=change,
            graph=changed,
            path=path,
            bound=bound_of(changed, changed.node(change.layer)),
            parameters=(stored_numbers(self.graph), stored_numbers(changed)),
            trained=(trained_numbers(self.graph), trained_numbers(changed)),
            closes_path=self.reaches and not reaches,
            reaches_input=reaches,
            stops=path.report.stopped,
            newly_flagged=tuple(
                node.name
                for node in changed.nodes
                if node.op.is_layer
                and node.name != change.layer
                and bound_of(changed, node).flagged
                and not bound_of(self.graph, self.graph.node(node.name)).flagged
            ),
        )
