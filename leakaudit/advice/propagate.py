"""What a changed shape does to the operators behind it: new shapes, or a refusal with its reason.

Only operators whose own meaning does not depend on the sizes are followed. The others (slices,
products of two activations, stored position embeddings) are refused, not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch
from itertools import zip_longest
from math import prod

from leakaudit import operators as ops
from leakaudit.graph import Graph, Node, Parameter

Shape = tuple[int, ...]


class RefusedChange(Exception):
    """A change that an operator behind it does not allow; the text is the reason."""


@dataclass(slots=True)
class Sizes:
    """The sizes of a graph while a change is carried through it.

    Attributes:
        graph: The network before the change.
        shapes: Per tensor its shape after the change, as far as computed.
        parameters: Every parameter, with its shape after the change.
    """

    graph: Graph
    shapes: dict[str, Shape]
    parameters: dict[str, Parameter]

    def of(self, name: str) -> Shape:
        """The shape of a node's input after the change."""
        if name in self.shapes:
            return self.shapes[name]
        return self.parameters[name].shape

    def before(self, name: str) -> Shape:
        """The shape of a node's input before the change."""
        stored = self.graph.tensors.get(name) or self.graph.parameters[name]
        return stored.shape

    def resize(self, node: Node, role: str, shape: Shape) -> None:
        """Give the parameter in this role another shape.

        Raises:
            RefusedChange: Another layer uses it too.
        """
        name = node.parameter(role)
        if name is None or self.parameters[name].shape == shape:
            return
        if self.graph.parameter_uses.get(name, 0) > 1:
            raise RefusedChange(f"{node.name} shares its {role} with another layer")
        self.parameters[name] = replace(self.parameters[name], shape=shape)


def set_outputs(sizes: Sizes, layer: Node, outputs: int) -> None:
    """Give a layer another number of filters or outputs.

    Raises:
        RefusedChange: Another layer uses its weight too.
    """
    weight = sizes.parameters[layer.parameter("weight") or ""].shape
    if isinstance(layer.op, ops.Linear) and layer.op.transposed:
        sizes.resize(layer, "weight", (weight[0], outputs))
    else:
        sizes.resize(layer, "weight", (outputs, *weight[1:]))


@singledispatch
def propagate(op: ops.Operator, node: Node, sizes: Sizes) -> tuple[ops.Operator, Shape]:
    """The operator and the shape of its output after its input has changed.

    Args:
        op: The operator, `node.op`.
        node: The node; its parameters are resized in `sizes` where they follow the input.
        sizes: Shapes of its inputs.

    Raises:
        RefusedChange: The operator does not allow the change, or is not followed.
    """
    read = " and ".join("x".join(map(str, sizes.of(name))) for name in node.inputs)
    raise RefusedChange(
        f"{node.name} ({type(op).__name__}) behind it would read {read}, and is not followed"
    )


@propagate.register
def _convolution(op: ops.Conv, node: Node, sizes: Sizes) -> tuple[ops.Operator, Shape]:
    batch, channels, *spatial = sizes.of(node.inputs[0])
    filters = sizes.parameters[node.parameter("weight") or ""].shape[0]
    if channels % op.groups or filters % op.groups:
        raise RefusedChange(
            f"{node.name} has {op.groups} groups, which would not divide its "
            f"{channels} channels and {filters} filters"
        )
    sizes.resize(node, "weight", (filters, channels // op.groups, *op.kernel))
    sizes.resize(node, "bias", (filters,))
    return op, (batch, filters, *_positions(op, node, tuple(spatial)))


@propagate.register
def _linear(op: ops.Linear, node: Node, sizes: Sizes) -> tuple[ops.Operator, Shape]:
    *leading, features = sizes.of(node.inputs[0])
    weight = sizes.parameters[node.parameter("weight") or ""].shape
    outputs = weight[1] if op.transposed else weight[0]
    sizes.resize(node, "weight", (features, outputs) if op.transposed else (outputs, features))
    sizes.resize(node, "bias", (outputs,))
    return replace(op, in_features=features, out_features=outputs), (*leading, outputs)


@propagate.register(ops.Activation)
@propagate.register(ops.Elementwise)
@propagate.register(ops.Scale)
@propagate.register(ops.Softmax)
@propagate.register(ops.LpNormalization)
@propagate.register(ops.LocalResponseNorm)
def _same_shape(op: ops.Operator, node: Node, sizes: Sizes) -> tuple[ops.Operator, Shape]:
    return op, sizes.of(node.inputs[0])


@propagate.register
def _prelu(op: ops.PRelu, node: Node, sizes: Sizes) -> tuple[ops.Operator, Shape]:
    shape = sizes.of(node.inputs[0])
    slope = sizes.parameters[node.parameter("slope") or ""].shape
    if prod(slope) > 1:
        channels = sizes.before(node.inputs[0])[1]
        if prod(slope) != channels:
            raise RefusedChange(f"{node.name} has slopes of the shape {slope}")
        sizes.resize(node, "slope", tuple(shape[1] if s == channels else s for s in slope))
    return op, shape


@propagate.register(ops.BatchNorm)
@propagate.register(ops.GroupNorm)
def _per_channel(
    op: ops.BatchNorm | ops.GroupNorm, node: Node, sizes: Sizes
) -> tuple[ops.Operator, Shape]:
    shape = sizes.of(node.inputs[0])
    if isinstance(op, ops.GroupNorm) and shape[1] % op.groups:
        raise RefusedChange(f"{node.name} normalises {op.groups} groups of channels")
    for role, _ in node.parameters:
        sizes.resize(node, role, (shape[1],))
    return op, shape


@propagate.register(ops.MaxPool)
@propagate.register(ops.AveragePool)
def _pool(
    op: ops.MaxPool | ops.AveragePool, node: Node, sizes: Sizes
) -> tuple[ops.Operator, Shape]:
    batch, channels, *spatial = sizes.of(node.inputs[0])
    if op.ceil and tuple(spatial) != sizes.before(node.inputs[0])[2:]:
        raise RefusedChange(f"{node.name} rounds its number of positions up")
    if op.ceil:
        return op, (batch, channels, *sizes.before(node.outputs[0])[2:])
    return op, (batch, channels, *_positions(op, node, tuple(spatial)))


@propagate.register
def _adaptive(op: ops.AdaptiveAveragePool, node: Node, sizes: Sizes) -> tuple[ops.Operator, Shape]:
    # The pooling's own setting is its output size, or 1: what it had, it keeps.
    return op, (*sizes.of(node.inputs[0])[:2], *sizes.before(node.outputs[0])[2:])


@propagate.register
def _reduce(op: ops.Reduce, node: Node, sizes: Sizes) -> tuple[ops.Operator, Shape]:
    shape = sizes.of(node.inputs[0])
    if op.keepdims:
        return op, tuple(1 if axis in op.axes else size for axis, size in enumerate(shape))
    return op, tuple(size for axis, size in enumerate(shape) if axis not in op.axes)


@propagate.register
def _transpose(op: ops.Transpose, node: Node, sizes: Sizes) -> tuple[ops.Operator, Shape]:
    shape = sizes.of(node.inputs[0])
    return op, tuple(shape[axis] for axis in op.permutation)


@propagate.register
def _concat(op: ops.Concat, node: Node, sizes: Sizes) -> tuple[ops.Operator, Shape]:
    shapes = [sizes.of(name) for name in node.inputs]
    rests = {(*shape[: op.axis], *shape[op.axis + 1 :]) for shape in shapes}
    if len(rests) > 1:
        raise RefusedChange(f"{node.name} concatenates tensors, which would no longer fit")
    total = sum(shape[op.axis] for shape in shapes)
    return op, (*shapes[0][: op.axis], total, *shapes[0][op.axis + 1 :])


@propagate.register(ops.Add)
@propagate.register(ops.Sub)
@propagate.register(ops.Mul)
@propagate.register(ops.Div)
def _elementwise_pair(op: ops.Operator, node: Node, sizes: Sizes) -> tuple[ops.Operator, Shape]:
    old = [sizes.before(name) for name in node.inputs]
    new = [sizes.of(name) for name in node.inputs]
    result = []
    aligned = [list(reversed(shape)) for shape in (*old, *new)]
    for a_old, b_old, a_new, b_new in zip_longest(*aligned, fillvalue=1):
        # Axes broadcast after the change exactly where they did before.
        broadcast = a_old == 1 or b_old == 1
        if a_new != b_new and not (broadcast and 1 in (a_new, b_new)):
            what = (
                "a residual branch" if all(n in sizes.shapes for n in node.inputs) else "a tensor"
            )
            raise RefusedChange(
                f"{node.name} ({type(op).__name__}) joins it with {what} of another size: "
                f"{'x'.join(map(str, new[0]))} and {'x'.join(map(str, new[1]))}"
            )
        result.append(max(a_new, b_new))
    return op, tuple(reversed(result))


@propagate.register
def _reshape(op: ops.Reshape, node: Node, sizes: Sizes) -> tuple[ops.Operator, Shape]:
    """Axes that were merged stay merged; an axis that was split keeps its size."""
    old_in, old_out = sizes.before(node.inputs[0]), sizes.before(node.outputs[0])
    new_in = sizes.of(node.inputs[0])
    result: list[int] = []
    i = j = 0
    while i < len(old_in) or j < len(old_out):
        first_in, first_out = i, j
        i, j = i + 1, j + 1
        while prod(old_in[first_in:i]) != prod(old_out[first_out:j]):
            if prod(old_in[first_in:i]) < prod(old_out[first_out:j]):
                i += 1
            else:
                j += 1
        if j >= len(old_out):  # trailing axes of size 1
            i = len(old_in)
        elif i >= len(old_in):
            j = len(old_out)
        merged, parts = new_in[first_in:i], old_out[first_out:j]
        if merged == old_in[first_in:i]:
            result.extend(parts)
        elif sum(part != 1 for part in parts) <= 1 and parts:
            wide = next((k for k, part in enumerate(parts) if part != 1), 0)
            result.extend(prod(merged) if k == wide else 1 for k in range(len(parts)))
        else:
            raise RefusedChange(f"{node.name} splits an axis whose size would change")
    return op, tuple(result)


def _positions(
    op: ops.Conv | ops.MaxPool | ops.AveragePool, node: Node, spatial: Shape
) -> tuple[int, ...]:
    sizes = tuple(axis.positions for axis in op.spatial_axes(spatial))
    if min(sizes) < 1:
        raise RefusedChange(f"nothing would be left at {node.name}: its input would be too small")
    return sizes
