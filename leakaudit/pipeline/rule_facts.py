"""What one model's layers and leak path say to the rules: reports of layers, facts, symbols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from leakaudit.counting.count import READS_STORED, count, verdict
from leakaudit.counting.geometry import geometry_of
from leakaudit.facts.fact import QUALITY_TEXT, Derivation, Kind, Quality, value
from leakaudit.facts.general import AffineGradient, activations
from leakaudit.findings import LayerReport, LeakPathReport, StopKind, Verdict
from leakaudit.graph import Graph, Node
from leakaudit.leakpath.path import LeakPath
from leakaudit.operators import Unsupported
from leakaudit.operators.arithmetic import AddedParameterGradient, BranchValue, Sum
from leakaudit.rules.engine import LayerFacts, ModelFacts


def layer_report(graph: Graph, node: Node, path: LeakPath) -> LayerReport:
    """Count one layer with weights.

    A layer into which nothing of the graph's inputs flows has nothing private to count.
    """
    report = LayerReport(
        name=node.name,
        op=type(node.op).__name__.lower(),
        origin=node.origin,
        input_shape=graph.tensors[node.inputs[0]].shape,
        output_shape=graph.tensors[node.outputs[0]].shape,
        parameters=node.op.hyperparameters(graph, node),
        counts=None,
        verdict=Verdict.UNDETERMINED,
        note=READS_STORED,
    )
    if node.inputs[0] not in graph.depend_on_inputs:
        return report
    rank = path.knowledge.rank(node)
    counts = count(graph, node, rank)
    notes = []
    if rank is not None:
        notes.append(
            "what stands above (averages, selections, narrow layers) limits the gradient of its "
            f"output: its rank over positions is at most {rank}"
        )
    if counts.unread:
        notes.append(f"{counts.unread} unknowns are read by no tap and cannot be recovered")
    weight = node.parameter("weight") or ""
    if graph.parameter_uses[weight] > 1:
        notes.append("the weight is shared with another layer: its gradient is a sum")
    if _shared_bias(graph, node):
        notes.append("the bias is shared with another layer: its gradient is a sum")
    if not graph.parameters[weight].trainable:
        notes.append("the weight is frozen: it sends no gradient")
    return replace(report, counts=counts, verdict=verdict(counts), note="; ".join(notes))


def _shared_bias(graph: Graph, node: Node) -> bool:
    bias = node.parameter("bias")
    return bias is not None and graph.parameter_uses[bias] > 1


def layer_facts(graph: Graph, node: Node, layer: LayerReport, path: LeakPath) -> LayerFacts:
    """What the rules may know of a counted layer."""
    geometry = geometry_of(graph, node)
    weight, bias = node.parameter("weight") or "", node.parameter("bias")
    counts = layer.counts
    if counts is None:
        raise ValueError(f"{layer.name} is not counted")
    return LayerFacts(
        name=layer.name,
        operator=layer.op,
        fingerprint_parts=_layer_identity(layer),
        symbols={
            "X": counts.unknowns,
            "unread": counts.unread,
            "A": counts.gradient_constraints,
            "B": counts.weight_constraints,
            "redundant": counts.redundant,
            "bound": counts.rank_bound,
            "gradient_bound": counts.gradient_rank_bound,
            "N": geometry.channels,
            "F": geometry.filters,
            "K": prod(axis.kernel for axis in geometry.axes),
            "L": prod(axis.positions for axis in geometry.axes[1:]),
            "g": geometry.groups,
            "batch": geometry.axes[0].size,
            "positions": prod(axis.positions for axis in geometry.axes),
            "is_linear": not node.op.is_convolution,
            "has_bias": bias is not None,
            "trainable": geometry.observed,
            "bias_trainable": bias is not None and graph.parameters[bias].trainable,
            "weight_shared": graph.parameter_uses[weight] > 1,
            "bias_shared": _shared_bias(graph, node),
            "path_reaches": node.inputs[0] in _reached(path),
            "input_exact": path.knowledge.exact(value(node.inputs[0])),
            "reads_input": _moved_from(graph, node.inputs[0]) in graph.inputs,
        },
    )


def _layer_identity(layer: LayerReport) -> tuple[str, ...]:
    """What makes this layer this layer, besides its name: its own design, and its resolution.

    What its neighbours decide is left out, or changing one layer would change the next one's
    findings too: the input's channels (of a dense layer: features), and the width where a
    depthwise convolution only takes it over. So is the batch size, a matter of training.
    """
    own = dict(layer.parameters)
    if layer.op == "linear":
        del own["in_features"]
        resolution = (layer.input_shape[1:-1], layer.output_shape[1:-1])
    else:
        channels = layer.input_shape[1]
        if own["groups"] == channels > 1:
            own["groups"] = "depthwise"
            own["filters"] = f"{layer.output_shape[1] // channels} per channel"
        resolution = (layer.input_shape[2:], layer.output_shape[2:])
    return (
        *("x".join(map(str, sizes)) for sizes in resolution),
        *(f"{key}={value}" for key, value in sorted(own.items())),
    )


def _model_identity(graph: Graph, path: LeakPathReport) -> tuple[str, ...]:
    """What makes a finding on the model this finding: its inputs, and how far the leak gets.

    Not the layers: those have findings of their own.
    """
    inputs = (
        f"{name}:{'x'.join(map(str, graph.tensors[name].shape[1:]))}" for name in graph.inputs
    )
    return (*inputs, f"furthest={path.furthest or ''}")


def _reached(path: LeakPath) -> set[str]:
    """Tensors whose value follows from the gradients, in whatever quality."""
    return {fact.tensor for fact in path.knowledge.history if fact.kind is Kind.VALUE}


def _how_known(path: LeakPath) -> str:
    """How well the furthest tensor is known, in words; empty where nothing is reached."""
    quality = path.knowledge.quality(path.target) if path.target else None
    if quality is None:
        return ""
    return "up to one unknown factor" if quality is Quality.SCALED else QUALITY_TEXT[quality]


def model_facts(
    graph: Graph, layers: Sequence[LayerReport], unsupported: Sequence[Node], path: LeakPath
) -> ModelFacts:
    """What the rules may know of the model, `unsupported` being the nodes not understood."""
    report = path.report
    added = _passed(path, AddedParameterGradient)
    branches = [
        name
        for name in _passed(path, AffineGradient, BranchValue)
        if isinstance(graph.node(name).op, Sum)
        and len(activations(path.knowledge, graph.node(name))) > 1
    ]
    return ModelFacts(
        symbols={
            "reaches_input": report.reaches_input,
            "complete": not unsupported,
            "reached": len(_reached(path)),
            "furthest_size": report.furthest_size,
            "input_size": sum(prod(graph.tensors[name].shape) for name in graph.inputs),
            "layers": len(layers),
            "unsupported": len(unsupported),
            "position_embedding": bool(added),
            "branch_sums": len(branches),
            "stops": len(report.stopped),
            "unfollowed": sum(stop.kind is StopKind.NOT_FOLLOWED for stop in report.stopped),
            "added_at": ", ".join(added),
            "branches": ", ".join(branches),
            "stopped_by": "; ".join(
                f"{stop.at} ({graph.node(stop.at).origin})" for stop in report.stopped
            ),
            "input": path.target.tensor
            if report.reaches_input and path.target
            else ", ".join(graph.inputs),
            "furthest": report.furthest or "",
            "furthest_known": _how_known(path),
            "unsupported_names": ", ".join(
                dict.fromkeys(operator_kind(node) for node in unsupported)
            ),
        },
        fingerprint_parts=_model_identity(graph, report),
    )


def _passed(path: LeakPath, *kinds: type[Derivation]) -> list[str]:
    """Nodes at which the path takes a step of these kinds, in the order of the path."""
    return list(dict.fromkeys(step.node for step in path.steps if isinstance(step, kinds)))


def _moved_from(graph: Graph, tensor: str) -> str:
    """The tensor that this one is only a rearrangement of."""
    while (node := graph.producers.get(tensor)) is not None:
        if not node.op.only_rearranges:
            break
        tensor = node.inputs[0]
    return tensor


def operator_kind(node: Node) -> str:
    """The operator as the file names it."""
    return node.op.kind if isinstance(node.op, Unsupported) else node.origin
