"""One change of one layer's design, and the changes to try, smallest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from leakaudit.graph import Graph, Node
from leakaudit.operators import Identity, Reshape
from leakaudit.operators.convolution import Grouped

SPATIAL_RANKS = (3, 4, 5)  # (B, N, H_1..H_d) for d = 1..3


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one layer.

    Attributes:
        layer: The node that it is about.
        parameter: The design parameter: filters, kernel, stride, padding, groups, outputs, bias,
            pooling, freezing.
        text: The change for a reader, e.g. "filters 12 -> 7".
        op: The operator with its new hyperparameters, None where these stay.
        filters: The new number of filters or outputs, None where it stays.
        drop_bias: Leave the bias out.
        freeze: Do not train the weight.
        pool: Average pooling in front of the layer, kernel = stride, one size per spatial axis.
    """

    layer: str
    parameter: str
    text: str
    op: Grouped | None = None
    filters: int | None = None
    drop_bias: bool = False
    freeze: bool = False
    pool: tuple[int, ...] = ()

    @property
    def reshapes(self) -> bool:
        """Whether anything but what is trained changes."""
        return bool(self.op or self.filters or self.drop_bias or self.pool)


def families(graph: Graph, node: Node) -> Iterator[tuple[str, Iterator[Change]]]:
    """Per design parameter the changes to try, the smallest first."""
    weight = graph.parameters[node.parameter("weight") or ""]
    op, read = node.op, graph.tensors[node.inputs[0]].shape
    if isinstance(op, Grouped) and op.is_layer:
        yield "filters", _fewer_filters(node.name, op, weight.shape[0])
        yield "kernel", _smaller_kernels(node.name, op)
        yield "stride", _larger_strides(node.name, op, read[2:])
        yield "padding", _paddings(node.name, op)
        yield "groups", _more_groups(node.name, op, read[1], weight.shape[0])
        if weight.trainable:
            yield "freezing", iter((freezing(node.name),))
    elif op.is_layer:
        if node.parameter("bias") is not None:
            yield "bias", iter((Change(node.name, "bias", "leave out bias", drop_bias=True),))
        shape = feature_map(graph, node)
        if shape is not None:
            yield "pooling", _poolings(node.name, graph.tensors[shape].shape[2:])
        if weight.trainable:
            yield "freezing", _frozen_dense(node.name, graph.tensors[node.outputs[0]].shape[-1])


def freezing(layer: str) -> Change:
    """Do not train this layer's weight."""
    return Change(layer, "freezing", "freeze weight", freeze=True)


def feature_map(graph: Graph, node: Node) -> str | None:
    """The tensor with spatial axes that a dense layer reads flattened, None where there is none."""
    tensor = node.inputs[0]
    while len(graph.tensors[tensor].shape) not in SPATIAL_RANKS:
        producer = graph.producers.get(tensor)
        if producer is None or not isinstance(producer.op, Reshape | Identity):
            return None
        tensor = producer.inputs[0]
    is_tokens = tensor == node.inputs[0]  # read unflattened, its last axis is the features
    return None if is_tokens or max(graph.tensors[tensor].shape[2:]) == 1 else tensor


def _fewer_filters(layer: str, op: Grouped, filters: int) -> Iterator[Change]:
    for fewer in range(filters - op.groups, 0, -op.groups):
        yield Change(layer, "filters", f"filters {filters} -> {fewer}", filters=fewer)


def _smaller_kernels(layer: str, op: Grouped) -> Iterator[Change]:
    """Smaller kernels; the padding shrinks along, so that the output keeps its size if it can."""
    for less in range(1, max(op.kernel)):
        kernel = tuple(max(1, size - less) for size in op.kernel)
        begin, end = [], []
        for old, new, first, last, dilation in zip(
            op.kernel, kernel, op.padding_begin, op.padding_end, op.dilation, strict=True
        ):
            cut = (old - new) * dilation
            from_begin = min(first, cut // 2)
            begin.append(first - from_begin)
            end.append(max(0, last - (cut - from_begin)))
        changed = replace(op, kernel=kernel, padding_begin=tuple(begin), padding_end=tuple(end))
        text = f"kernel {sizes(op.kernel)} -> {sizes(kernel)}"
        if (changed.padding_begin, changed.padding_end) != (op.padding_begin, op.padding_end):
            text += f", padding {_padding(op)} -> {_padding(changed)}"
        yield Change(layer, "kernel", text, op=changed)


def _larger_strides(layer: str, op: Grouped, spatial: tuple[int, ...]) -> Iterator[Change]:
    for more in range(1, max(spatial) - min(op.stride) + 1):
        stride = tuple(
            max(old, min(old + more, size)) for old, size in zip(op.stride, spatial, strict=True)
        )
        yield Change(
            layer,
            "stride",
            f"stride {sizes(op.stride)} -> {sizes(stride)}",
            op=replace(op, stride=stride),
        )


def _paddings(layer: str, op: Grouped) -> Iterator[Change]:
    """Every symmetric padding below the kernel's reach, the nearest first, less before more."""
    reach = max(
        dilation * (size - 1) for size, dilation in zip(op.kernel, op.dilation, strict=True)
    )
    now = max(op.padding_begin)
    for padding in sorted(range(reach + 1), key=lambda p: (abs(p - now), p)):
        limits = (d * (k - 1) for k, d in zip(op.kernel, op.dilation, strict=True))
        per_axis = tuple(min(padding, limit) for limit in limits)
        changed = replace(op, padding_begin=per_axis, padding_end=per_axis)
        if changed != op:
            text = f"padding {_padding(op)} -> {_padding(changed)}"
            yield Change(layer, "padding", text, op=changed)


def _more_groups(layer: str, op: Grouped, channels: int, filters: int) -> Iterator[Change]:
    for groups in range(op.groups + 1, min(channels, filters) + 1):
        if channels % groups == filters % groups == 0:
            yield Change(
                layer,
                "groups",
                f"groups {op.groups} -> {groups}",
                op=replace(op, groups=groups),
            )


def _poolings(layer: str, spatial: tuple[int, ...]) -> Iterator[Change]:
    for size in range(2, max(spatial) + 1):
        kernel = tuple(min(size, extent) for extent in spatial)
        text = f"average pooling {sizes(kernel)} in front of it"
        yield Change(layer, "pooling", text, pool=kernel)


def _frozen_dense(layer: str, outputs: int) -> Iterator[Change]:
    """Frozen as it is, or with fewer outputs: each output is still one equation for the input."""
    yield freezing(layer)
    for fewer in range(outputs - 1, 0, -1):
        text = f"freeze weight and outputs {outputs} -> {fewer}"
        yield Change(layer, "freezing", text, filters=fewer, freeze=True)


def sizes(values: tuple[int, ...]) -> str:
    """One number where all axes have it, else all of them."""
    if len(set(values)) == 1:
        return str(values[0])
    return "x".join(map(str, values))


def _padding(op: Grouped) -> str:
    if op.padding_begin == op.padding_end:
        return sizes(op.padding_begin)
    return f"{sizes(op.padding_begin)}+{sizes(op.padding_end)}"
