"""Where a leak path ends: the nodes that it reaches and does not pass, each with its reason."""

from __future__ import annotations

from dataclasses import replace

from leakaudit.counting.bound import layer_bound
from leakaudit.counting.geometry import geometry_of
from leakaudit.facts.fact import gradient, value
from leakaudit.facts.knowledge import Knowledge
from leakaudit.findings import PathStop, StopKind
from leakaudit.graph import Node


def stops(known: Knowledge) -> tuple[PathStop, ...]:
    """Every place where the path ends, from the head to the inputs.

    A node that only passes on what comes (a reshape, a sum) is no reason for an end: the search
    goes on below it, to a node that has one, or to the model's input.
    """
    graph = known.graph
    stopped: dict[str, PathStop] = {}
    silent: set[str] = set()  # nothing reaches their output, and they are not the reason for it
    explained: set[str] = set()  # of these and of activations: what is behind them has stopped
    for node in reversed(graph.nodes):
        unknown = _unknown_inputs(known, node)
        if not unknown:
            continue
        readers = {use.node.name for output in node.outputs for use in graph.uses[output]}
        consequence = bool(readers & (stopped.keys() | explained))
        heads = any(output in graph.outputs for output in node.outputs)
        below_silence = bool(readers & silent) and not consequence
        if not (heads or known.reached(node) or below_silence):
            continue
        # An activation that only misses the value of its output adds nothing to what stopped.
        if node.op.is_activation and readers and readers <= stopped.keys() | explained:
            explained.add(node.name)
            continue
        reason = node.op.stop(node, known)
        if reason is None:
            if not known.exact(*(gradient(output) for output in node.outputs)):
                silent.add(node.name)
            if consequence:
                explained.add(node.name)
                continue
            if not any(name in graph.inputs for name in unknown):
                continue
            reason = _at_the_input(known, node)
        kind = StopKind.PROVEN if _proven(known, node) else StopKind.NOT_FOLLOWED
        stopped[node.name] = PathStop(node.name, _sentence(known, node, unknown, reason), kind)
    return tuple(stopped.values())


def _proven(known: Knowledge, node: Node) -> bool:
    """Whether all equations of a layer together leave open what it reads, were they all known.

    It is about the layer alone. Where others read the same tensor, their equations may close it;
    where it is computed linearly from fewer numbers, as a padding of copies is, its own may.
    """
    if not any(parameter.trainable for parameter in known.graph.parameters.values()):
        return True  # no gradient is sent
    if not node.op.is_layer or not _unknowns_of_its_own(known, node.inputs[0]):
        return False
    layer = replace(geometry_of(known.graph, node), gradient_rank=known.rank(node))
    bound = layer_bound(layer)
    return bound.rank < bound.read


def _unknowns_of_its_own(known: Knowledge, tensor: str) -> bool:
    """Whether a tensor has one reader, and comes from outside or out of an activation."""
    while len(known.graph.uses[tensor]) == 1:
        producer = known.graph.producers.get(tensor)
        if producer is None or not producer.op.only_rearranges:
            return producer is None or producer.op.is_activation
        tensor = producer.inputs[0]
    return False


def _unknown_inputs(known: Knowledge, node: Node) -> list[str]:
    """The activations that the node reads and that are not known exactly."""
    names = [name for name in dict.fromkeys(node.inputs) if name in known.graph.tensors]
    return [name for name in names if not known.exact(value(name))]


def _at_the_input(known: Knowledge, node: Node) -> str:
    if known.exact(*(gradient(output) for output in node.outputs)):
        return "its gradient passes, and no equation gives a value"
    return "neither the value nor the gradient of its output is known"


def _sentence(known: Knowledge, node: Node, unknown: list[str], reason: str) -> str:
    """Operator, the tensors that stay unknown with their sizes, and the reason."""
    tensors = " and ".join(
        f"{name} ({'x'.join(map(str, known.graph.tensors[name].shape))})" for name in unknown
    )
    return f"{node.origin or type(node.op).__name__} of {tensors}: {reason}"
