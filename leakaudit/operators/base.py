"""What operators of several families have in common: windows, opaque and affine operators.

A family states of each of its operators the hyperparameters and every static face: output shapes,
derivations and where they end, the bound on a gradient that flows back, traits. How operators are
computed, read from files and replayed is said in the files of the same name elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from leakaudit.counting.geometry import Axis
from leakaudit.facts.fact import Derivation
from leakaudit.facts.general import activations, affine_gradients
from leakaudit.facts.gradient_rank import GradientRank, mapped, scaled, summed_to
from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Graph, Node, Operator, Shape, face

Shapes = Sequence[Shape]
Roles = Mapping[str, Shape]
Ranks = Sequence[GradientRank]
Bound = GradientRank | None  # None: nothing is known to limit the gradient


@dataclass(frozen=True, slots=True)
class Window(Operator):
    """A kernel that moves over the axes H_1..H_d of (B, N, H_1..H_d). Fields are per such axis."""

    abstract: ClassVar[bool] = True

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding_begin: tuple[int, ...]
    padding_end: tuple[int, ...]
    dilation: tuple[int, ...]

    def spatial_axes(self, sizes: Sequence[int]) -> tuple[Axis, ...]:
        """The axes over which it moves; `sizes` are the input's pixels along each of them.

        Raises:
            ValueError: There are more or fewer of them.
        """
        fields = (self.kernel, self.stride, self.padding_begin, self.padding_end, self.dilation)
        return tuple(Axis(*axis) for axis in zip(sizes, *fields, strict=True))


@dataclass(frozen=True, slots=True)
class ByElement(Operator):
    """Each element of the output comes from one of each input, with numpy's broadcasting.

    The gradient is multiplied by a derivative that may differ from element to element.
    """

    abstract: ClassVar[bool] = True

    def output_shapes(self, inputs: Shapes, parameters: Roles, stated: Shapes) -> Shapes:
        return [broadcast(*inputs)]

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        (y,) = outputs
        return summed_to(scaled(y, range(len(y.shape))), graph.shape(node.inputs[index]))


@dataclass(frozen=True, slots=True)
class Opaque(Operator):
    """Its gradient needs the input itself: nothing passes unless that is known."""

    abstract: ClassVar[bool] = True

    @property
    @face
    def reason(self) -> str:
        """Why nothing passes."""
        raise NotImplementedError

    def derive(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        """Nothing of its own: what holds for every operator covers the case of a known input."""
        return iter(())

    def stop(self, node: Node, known: Knowledge) -> str | None:
        return self.reason


@dataclass(frozen=True, slots=True)
class Affine(Operator):
    """It is affine in its one activation and loses values: only the gradient passes back."""

    abstract: ClassVar[bool] = True

    def derive(self, node: Node, known: Knowledge) -> Iterator[Derivation]:
        indices = activations(known, node)
        if len(indices) == 1:
            yield from affine_gradients(node, known, indices[0])


@dataclass(frozen=True, slots=True)
class AlongAxes(Affine):
    """A linear map along each spatial axis of (B, N, H_1..H_d): averages, interpolation."""

    abstract: ClassVar[bool] = True

    def gradient_bound(self, graph: Graph, node: Node, index: int, outputs: Ranks) -> Bound:
        y, shape = outputs[0], graph.shape(node.inputs[0])
        for axis in range(2, len(shape)):
            y = mapped(y, axis, shape[axis])
        return y


NOT_SOLVED = "its linear equations are not solved here; only its gradient passes"


def averaging(node: Node, known: Knowledge) -> str:
    """Why an average does not give its input."""
    size_in, size_out = sizes(node, known)
    return f"averaging merges {size_in} values into {size_out}"


def sizes(node: Node, known: Knowledge) -> tuple[str, str]:
    """The shapes of a node's first input and output, for a sentence."""
    first, last = (known.graph.shape(names[0]) for names in (node.inputs, node.outputs))
    return " x ".join(map(str, first)), " x ".join(map(str, last))


def require(fits: bool) -> None:
    """Refuse shapes that an operator does not fit.

    Raises:
        ValueError: They do not.
    """
    if not fits:
        raise ValueError("the operator does not fit the shapes of its inputs")


def broadcast(*shapes: Shape) -> Shape:
    """The shape to which numpy spreads these.

    Raises:
        ValueError: They do not fit one another.
    """
    import numpy as np  # here: the command line's help and completion do without it

    return np.broadcast_shapes(*shapes)


def resized(inputs: Shapes, stated: Shapes) -> Shapes:
    """The output of an operator whose spatial sizes are the stated ones."""
    (source,), (target,) = inputs, stated
    require(len(target) == len(source) and min(target[2:], default=1) > 0)
    return [(*source[:2], *target[2:])]
