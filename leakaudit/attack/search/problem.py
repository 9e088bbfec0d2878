"""What is searched for, what it has to reproduce, and whether that can fix it at all.

Known are features (a tensor's exact value), where the replay found it their gradient, and the
shared gradients of the parameters between the input and the features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from leakaudit.equations.known import Known
from leakaudit.execute import NotExecutable, compute, execute
from leakaudit.graph import Graph, Node
from leakaudit.operators import Conv, Linear

# Above so many unknowns one start does not fit into minutes.
UNKNOWNS_LIMIT = 50_000


class NotTried(Exception):
    """The search cannot succeed, or is too large: the text says why."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive nodes through which everything from `source` to `sink` flows.

    Attributes:
        nodes: In their order.
        source: The one tensor that they read from before them.
        sink: The one that is read after them.
        parameters: Those whose gradients are observed and come from these nodes alone.
    """

    nodes: tuple[Node, ...]
    source: str
    sink: str
    parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One search.

    Attributes:
        graph: The network.
        constants: Parameters by name, and what follows from parameters alone; float64.
        target: The graph input that is unknown.
        features: The name of the tensor to reproduce.
        value: Its value, float64; `mask`: 1 where it is known, else 0.
        mask: Of the same shape.
        slope: dl/d(features), None where it is not known.
        gradients: Observed gradients of the parameters of all segments; empty without a slope.
        segments: From the input to the features, each starting at a layer with weights.
    """

    graph: Graph
    constants: Mapping[str, Tensor]
    target: str
    features: str
    value: Tensor
    mask: Tensor
    slope: Tensor | None
    gradients: Mapping[str, Tensor]
    segments: tuple[Segment, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the unknown input."""
        return self.graph.tensors[self.target].shape

    def forward(
        self,
        segments: Sequence[Segment],
        x: Tensor,
        parameters: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The last segment's sink, computed from the first one's source.

        Args:
            segments: Consecutive ones; with none, x comes back.
            x: The source, of the floating dtype in which everything is computed.
            parameters: Take these in place of the stored ones.
        """
        given = parameters or {}
        values = {segments[0].source: x} if segments else {}

        def read(name: str) -> Tensor:
            found = values.get(name, given.get(name))
            found = self.constants[name] if found is None else found
            return found.to(x.dtype) if found.is_floating_point() else found

        for segment in segments:
            for node in segment.nodes:
                stored = {name: read(name) for _, name in node.parameters}
                outputs = execute(self.graph, node, [read(name) for name in node.inputs], stored)
                values.update(zip(node.outputs, outputs, strict=True))
        return values[segments[-1].sink] if segments else x

    def residual(self, y: Tensor) -> float:
        """|y - value| / |value| over what is known of the features."""
        off = ((y.double() - self.value) * self.mask).norm()
        return float(off / (self.value * self.mask).norm().clamp_min(1e-300))


def pose(
    graph: Graph,
    weights: Mapping[str, Tensor],
    known: Mapping[str, Known],
    slopes: Mapping[str, Known],
    gradients: Mapping[str, Tensor],
) -> Problem:
    """The search for the graph's input from the known tensor nearest to it.

    Args:
        graph: The network.
        weights: Parameters by name, float64.
        known: Exactly known values by tensor.
        slopes: Exactly known dl/dt by tensor.
        gradients: Observed gradients by parameter.

    Raises:
        NotTried: No input can come of it: why not.
    """
    if len(graph.inputs) != 1:
        raise NotTried(f"the network has {len(graph.inputs)} inputs")
    (target,) = graph.inputs
    private = graph.depend_on_inputs
    features = next((t for t in graph.tensors if t in known and t in private), None)
    if features is None or target in known:
        raise NotTried("no features behind the input are known")
    unknowns = prod(graph.tensors[target].shape)
    if unknowns > UNKNOWNS_LIMIT:
        raise NotTried(f"{unknowns} unknowns are more than {UNKNOWNS_LIMIT}")
    below = _ancestors(graph, features)
    constants = dict(weights)
    for node in below:
        if not private.intersection(node.outputs):
            outputs = compute(graph, node, constants, constants)
            constants.update(zip(node.outputs, outputs, strict=True))
    nodes = [node for node in below if private.intersection(node.outputs)]
    found = known[features]
    slope = slopes.get(features)
    observed = gradients if slope is not None and slope.mask is None else {}
    segments = _segments(graph, nodes, target, features, observed)
    names = [name for segment in segments for name in segment.parameters]
    mask = torch.ones_like(found.tensor) if found.mask is None else found.mask.to(found.tensor)
    if not bool((found.tensor * mask).any()):
        raise NotTried("the known features are 0 throughout")
    problem = Problem(
        graph,
        constants,
        target,
        features,
        found.tensor,
        mask,
        slope.tensor if observed and slope is not None else None,
        {name: observed[name].double() for name in names},
        segments,
    )
    most = _equations(problem, nodes)
    if most < unknowns:
        raise NotTried(f"{unknowns} unknowns, and at most {most} known numbers depend on them")
    try:
        y = problem.forward(segments, torch.zeros(problem.shape).to(found.tensor))
    except NotExecutable as error:
        raise NotTried(str(error)) from error
    if y.shape != found.tensor.shape:
        raise NotTried(f"{features} has another shape than the graph states")
    return problem


def _ancestors(graph: Graph, tensor: str) -> list[Node]:
    """The nodes that a tensor is computed by, in their order."""
    needed = {tensor}
    found = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            found.append(node)
    return found[::-1]


def _frontier(graph: Graph, nodes: Sequence[Node], cut: int, features: str) -> set[str]:
    """The tensors by which the nodes before a cut act on what comes after it."""
    read = {name for node in nodes[cut:] for name in node.inputs} | {features}
    made = {name for node in nodes[cut:] for name in node.outputs}
    return (read - made) & graph.depend_on_inputs


def _segments(
    graph: Graph,
    nodes: Sequence[Node],
    target: str,
    features: str,
    observed: Mapping[str, Tensor],
) -> tuple[Segment, ...]:
    """Cut at every layer with weights that one tensor alone leads to."""
    cuts = [0]
    for position, node in enumerate(nodes):
        alone = len(_frontier(graph, nodes, position, features)) == 1
        if position and alone and isinstance(node.op, Conv | Linear):
            cuts.append(position)
    found = []
    for first, last in zip(cuts, [*cuts[1:], len(nodes)], strict=True):
        part = tuple(nodes[first:last])
        (source,) = _frontier(graph, nodes, first, features) if first else {target}
        (sink,) = _frontier(graph, nodes, last, features)
        names = dict.fromkeys(name for node in part for _, name in node.parameters)
        own = (n for n in names if n in observed and graph.parameter_uses[n] == 1)
        found.append(Segment(part, source, sink, tuple(own)))
    return tuple(found)


def _equations(problem: Problem, nodes: Sequence[Node]) -> int:
    """A bound on how many independent numbers about the input are known.

    Features, and gradients of the parameters above a cut, depend on the input only by what flows
    through that cut; the gradients below it come on top. The narrowest cut decides.
    """
    graph = problem.graph
    sizes, gradients = [], 0
    for position, node in enumerate(nodes):
        frontier = _frontier(graph, nodes, position, problem.features)
        sizes.append(gradients + sum(prod(graph.tensors[name].shape) for name in frontier))
        for _, name in node.parameters:
            gradients += problem.gradients[name].numel() if name in problem.gradients else 0
    return min([*sizes, gradients + int(problem.mask.sum())])
