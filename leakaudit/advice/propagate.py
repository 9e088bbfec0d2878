"""What a changed shape does to the operators behind it: new shapes, or a refusal with its reason.

Only operators whose own meaning does not depend on the sizes are followed, and each says itself how
(`Operator.follow`). The others (slices, products of two activations, stored position embeddings)
are refused, not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest

from leakaudit.graph import Graph, Node, Operator, Parameter, Shape
from leakaudit.operators.arithmetic import Arithmetic


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
        return self.graph.shape(name)

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


def propagate(node: Node, sizes: Sizes, outputs: int | None = None) -> tuple[Operator, Shape]:
    """The operator and the shape of its output after its input has changed.

    Args:
        node: The node; its parameters are resized in `sizes` where they follow the input.
        sizes: Shapes of its inputs.
        outputs: A layer's new number of filters or outputs, None where it stays.

    Raises:
        RefusedChange: The operator does not allow the change, or is not followed.
    """
    kind = type(node.op).__name__
    new = [sizes.of(name) for name in node.inputs]
    if isinstance(node.op, Arithmetic):
        _check_operands(node, sizes)
    try:
        op, parameters, shape = node.op.follow(
            [sizes.before(name) for name in node.inputs],
            new,
            {role: sizes.parameters[name].shape for role, name in node.parameters},
            [sizes.before(name) for name in node.outputs if name in sizes.graph.tensors],
            outputs,
        )
    except NotImplementedError as error:
        read = " and ".join(map(_text, new))
        raise RefusedChange(
            f"{node.name} ({kind}) behind it would read {read}, and is not followed"
        ) from error
    except ValueError as error:
        raise RefusedChange(f"{node.name} {error}") from error
    for role, resized in parameters.items():
        sizes.resize(node, role, resized)
    if min(shape, default=1) < 1:
        raise RefusedChange(f"nothing would be left at {node.name}: its input would be too small")
    return op, shape


def _check_operands(node: Node, sizes: Sizes) -> None:
    """Axes have to broadcast after the change exactly where they did before."""
    old = [sizes.before(name) for name in node.inputs]
    new = [sizes.of(name) for name in node.inputs]
    aligned = zip_longest(*(reversed(shape) for shape in (*old, *new)), fillvalue=1)
    for axis in aligned:
        before, after = axis[: len(old)], axis[len(old) :]
        if len(set(after)) > 1 and not (1 in before and 1 in after):
            is_branch = all(name in sizes.shapes for name in node.inputs)
            what = "a residual branch" if is_branch else "a tensor"
            raise RefusedChange(
                f"{node.name} ({type(node.op).__name__}) joins it with {what} of another size: "
                f"{' and '.join(map(_text, new))}"
            )


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
