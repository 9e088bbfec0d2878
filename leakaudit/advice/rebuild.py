"""The graph of the changed network, its shapes computed anew behind the change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from leakaudit.advice.change import Change, feature_map
from leakaudit.advice.propagate import RefusedChange, Sizes, propagate
from leakaudit.graph import Graph, Node, Shape, Tensor
from leakaudit.operators import AveragePool


@dataclass(frozen=True, slots=True)
class Pooling:
    """Where average pooling goes: between `tensor` and the node that reads it.

    `name` is the new node's, and also that of the tensor it computes.
    """

    name: str
    tensor: str
    reader: str


def rebuild(graph: Graph, change: Change) -> Graph:
    """Apply a change.

    Returns:
        The changed graph. Its weight source is the old one, which does not know the new shapes.

    Raises:
        RefusedChange: An operator behind the layer does not allow it.
    """
    layer = graph.node(change.layer)
    sizes = Sizes(
        graph, {name: graph.tensors[name].shape for name in graph.inputs}, dict(graph.parameters)
    )
    if change.freeze:
        weight = layer.parameter("weight") or ""
        stored = sizes.parameters[weight]
        sizes.parameters[weight] = replace(stored, trainable=False, trainable_assumed=False)
    where = pooling(graph, layer) if change.pool else None
    tensors: dict[str, Tensor] = {name: graph.tensors[name] for name in graph.inputs}
    nodes: list[Node] = []
    for node in graph.nodes:
        if where is not None and node.name == where.reader:
            pool = _pool(where, change.pool)
            _, shape = propagate(pool, sizes)
            nodes.append(pool)
            sizes.shapes[where.name] = shape
            old = graph.tensors[where.tensor]
            tensors[where.name] = Tensor(where.name, shape, old.dtype)
        node, shapes = _changed(node, change, sizes, where)
        nodes.append(node)
        for output, shape in zip(node.outputs, shapes, strict=True):
            sizes.shapes[output] = shape
            tensors[output] = replace(graph.tensors[output], shape=shape)
    for output in graph.outputs:
        if sizes.shapes[output] != graph.tensors[output].shape:
            raise RefusedChange("the network's output would change its shape")
    rebuilt = replace(graph, tensors=tensors, parameters=sizes.parameters, nodes=tuple(nodes))
    if change.drop_bias:
        bias = layer.parameter("bias") or ""
        if not rebuilt.parameter_uses[bias]:
            kept = {name: stored for name, stored in sizes.parameters.items() if name != bias}
            rebuilt = replace(rebuilt, parameters=kept)
    return rebuilt


def pooling(graph: Graph, layer: Node) -> Pooling:
    """Where average pooling in front of a dense layer goes.

    Raises:
        RefusedChange: The layer reads no feature map, or others read that too.
    """
    tensor = feature_map(graph, layer)
    if tensor is None:
        raise RefusedChange("it reads no feature map")
    if len(graph.uses[tensor]) != 1 or tensor in graph.outputs:
        raise RefusedChange(f"others read the feature map {tensor} too")
    name = f"{layer.name}.pool"
    while name in graph.tensors or any(node.name == name for node in graph.nodes):
        name += "_"
    return Pooling(name, tensor, graph.uses[tensor][0].node.name)


def trained_numbers(graph: Graph) -> int:
    """How many numbers are trained, and sent as gradient."""
    return sum(prod(stored.shape) for stored in graph.parameters.values() if stored.trainable)


def stored_numbers(graph: Graph) -> int:
    """How many numbers the parameters of all layers have, trained or not."""
    used = {name for node in graph.nodes for _, name in node.parameters}
    used |= {name for name, stored in graph.parameters.items() if stored.trainable}
    return sum(prod(graph.parameters[name].shape) for name in used)


def _changed(
    node: Node, change: Change, sizes: Sizes, where: Pooling | None
) -> tuple[Node, tuple[Shape, ...]]:
    """A node after the change, and the shapes of its outputs."""
    target = node.name == change.layer
    if target and change.op is not None:
        node = replace(node, op=change.op)
    if target and change.drop_bias:
        node = replace(node, parameters=tuple(p for p in node.parameters if p[0] != "bias"))
    same = all(
        sizes.of(name) == sizes.before(name)
        for name in (*node.inputs, *(name for _, name in node.parameters))
    )
    pooled = where is not None and node.name == where.reader
    if pooled and where is not None:
        # The rules compare with what was read before: show them the pooled size under its name.
        unpooled = sizes.shapes[where.tensor]
        sizes.shapes[where.tensor] = sizes.shapes[where.name]
        op, shape = propagate(node, sizes)
        sizes.shapes[where.tensor] = unpooled
        inputs = tuple(where.name if name == where.tensor else name for name in node.inputs)
        return replace(node, op=op, inputs=inputs), (shape,)
    if same and not target:
        return node, tuple(sizes.before(output) for output in node.outputs)
    op, shape = propagate(node, sizes, change.filters if target else None)
    if len(node.outputs) != 1:
        raise RefusedChange(f"{node.name} has several outputs, and is not followed")
    return replace(node, op=op), (shape,)


def _pool(where: Pooling, kernel: tuple[int, ...]) -> Node:
    none = (0,) * len(kernel)
    op = AveragePool(kernel, kernel, none, none, (1,) * len(kernel))
    return Node(where.name, op, (where.tensor,), (where.name,), (), "AveragePool")
