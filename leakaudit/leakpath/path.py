"""The fixpoint over all derivations, and the leak path read off it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from leakaudit.facts.fact import QUALITY_TEXT, Derivation, Fact, Kind, Quality, gradient, value
from leakaudit.facts.general import derive
from leakaudit.facts.knowledge import Knowledge
from leakaudit.findings import LeakPathReport, PathStep
from leakaudit.graph import Graph
from leakaudit.leakpath.stops import stops


class SumOverUses(Derivation):
    kind: ClassVar[str] = "sum-over-uses"
    text: ClassVar[str] = "the tensor is read more than once: its gradient is the sum over its uses"


@dataclass(frozen=True, slots=True)
class LeakPath:
    """What follows from the gradients, and how.

    Attributes:
        knowledge: Every fact with its derivation.
        target: The fact the path leads to: the value of a graph input, or of the tensor nearest
            to the inputs; None where no value follows.
        steps: The derivation tree of `target`, premises before conclusions.
        report: The same for a reader.
    """

    knowledge: Knowledge
    target: Fact | None
    steps: tuple[Derivation, ...]
    report: LeakPathReport


def find_leak_path(graph: Graph, loss: str) -> LeakPath:
    """Apply every operator's derivations until nothing new appears, then read off the path."""
    known = _everything(graph, loss)
    target = _target(known)
    steps = derivation_tree(known, target) if target else ()
    reaches = target is not None and target.tensor in graph.inputs and known.exact(target)
    report = LeakPathReport(
        reaches_input=reaches,
        furthest=target.tensor if target else None,
        furthest_size=prod(graph.tensors[target.tensor].shape) if target else 0,
        steps=tuple(_step(step) for step in steps),
        stopped=() if reaches else stops(known),
    )
    return LeakPath(known, target, steps, report)


def derivation_tree(known: Knowledge, fact: Fact) -> tuple[Derivation, ...]:
    """All derivations behind a fact, premises before conclusions, each once."""
    ordered: dict[int, Derivation] = {}
    pending: list[tuple[Fact, int, bool]] = [(fact, known.found, False)]
    while pending:  # an explicit stack: graphs are deeper than Python's recursion limit
        current, before, premises_done = pending.pop()
        number, derivation = known.derivation(current, before)
        if number in ordered:
            continue
        if premises_done:
            ordered[number] = derivation
        else:
            pending.append((current, before, True))
            pending.extend((premise, number, False) for premise in reversed(derivation.premises))
    return tuple(ordered.values())


def _everything(graph: Graph, loss: str) -> Knowledge:
    """The fixpoint. A node is asked again where a fact about a tensor it touches is new."""
    known = Knowledge(graph, loss)
    touching: dict[str, list[int]] = {}
    for position, node in enumerate(graph.nodes):
        for tensor in (*node.inputs, *node.outputs):
            touching.setdefault(tensor, []).append(position)
    stale = set(range(len(graph.nodes)))
    waiting: dict[int, list[Derivation]] = {}

    def add(derivation: Derivation) -> bool:
        new = known.add(derivation)
        if new:
            stale.update(touching[derivation.conclusion.tensor])
        return new

    while stale:
        # Backwards, because facts flow from the head to the input: few rounds suffice.
        for position in reversed(range(len(graph.nodes))):
            if position not in stale:
                continue
            stale.discard(position)
            node = graph.nodes[position]
            waiting[position] = []
            for derivation in derive(node, known):
                if derivation.waits(node, known):
                    waiting[position].append(derivation)
                else:
                    add(derivation)
        for derivation in _sums(known):
            add(derivation)
        if not stale:
            # One at a time: what follows from it may give the next one its missing equations.
            solves = (
                solve for position in sorted(waiting, reverse=True) for solve in waiting[position]
            )
            next(filter(add, solves), None)
    return known


def _sums(known: Knowledge) -> Iterator[Derivation]:
    for tensor, uses in known.graph.uses.items():
        if len(uses) < 2 or tensor in known.graph.outputs:
            continue
        parts = tuple(Fact(Kind.CONTRIBUTION, tensor, u.node.name, u.index) for u in uses)
        if known.exact(*parts):
            yield SumOverUses("", gradient(tensor), parts)


def _target(known: Knowledge) -> Fact | None:
    """The best-known value nearest to the inputs. Tensors stand in the order they are computed.

    An input up to one factor is a picture of another brightness: it says more than exact features.
    """
    private = known.graph.depend_on_inputs
    found = [name for name in known.graph.inputs if known.quality(value(name)) is not None]
    if found and all(known.quality(value(name)) is Quality.SCALED for name in found):
        return value(found[0])
    for minimum in (Quality.ACTIVE, Quality.SCALED):
        for tensor in known.graph.tensors:
            if tensor in private and (known.quality(value(tensor)) or 0) >= minimum:
                return value(tensor)
    return None


def _step(derivation: Derivation) -> PathStep:
    fact = str(derivation.conclusion)
    if derivation.quality is not Quality.EXACT:
        fact = f"{fact} {QUALITY_TEXT[derivation.quality]}"
    return PathStep(
        kind=type(derivation).kind,
        derivation=derivation.sentence(),
        tensor=derivation.conclusion.tensor,
        fact=fact,
        premises=tuple(str(premise) for premise in derivation.premises),
        layer=derivation.node,
        counts=dict(derivation.counts),
    )
