"""Derivations that hold for any operator, and what the operators' own ones share."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import ClassVar

from leakaudit.facts.fact import Derivation, gradient, value
from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Node, Unsupported


class Forward(Derivation):
    kind: ClassVar[str] = "forward"
    text: ClassVar[str] = "every input is known: the operator is computed"


class Backward(Derivation):
    kind: ClassVar[str] = "backward"
    text: ClassVar[str] = "every input is known: the gradient is propagated back as in training"


class AffineGradient(Derivation):
    kind: ClassVar[str] = "affine-gradient"
    text: ClassVar[str] = "the operator is affine in this input: its gradient passes back"


class UnusedGradient(Derivation):
    kind: ClassVar[str] = "unused-gradient"
    text: ClassVar[str] = "nothing reads this tensor: its gradient is 0"


class SelectedParameterGradient(Derivation):
    kind: ClassVar[str] = "selected-parameter-gradient"
    text: ClassVar[str] = (
        "the tensor holds elements of a parameter, each at most once: its gradient is theirs"
    )


def activations(known: Knowledge, node: Node) -> list[int]:
    """Positions of the inputs that are activations, not parameters."""
    return [i for i, name in enumerate(node.inputs) if name in known.graph.tensors]


def unknown_factors(known: Knowledge, node: Node) -> str:
    """Why a product of two activations passes nothing on."""
    factors = [node.inputs[i] for i in activations(known, node)]
    if known.graph.depend_on_inputs.issuperset(factors):
        return "it is a product of two activations, and neither is known"
    return (
        "one factor is computed from stored numbers alone (a merged low-rank update, say): an "
        "attacker can compute it too, but that is not followed here"
    )


def size(known: Knowledge, name: str) -> int:
    """Number of elements of a tensor or parameter."""
    return prod(known.graph.shape(name))


def reads_bias_once(known: Knowledge, node: Node) -> bool:
    """Whether each element of a bias is added to one element of the output, and its gradient sent.

    Then that gradient is dl/dy.
    """
    return reads_once(known, node, "bias")


def reads_once(known: Knowledge, node: Node, role: str) -> bool:
    """Whether each element of a parameter goes into one element of the output, its gradient sent.

    That gradient is then no sum.
    """
    name = node.parameter(role)
    return known.observed(name) and size(known, name or "") == size(known, node.outputs[0])


def derive(node: Node, known: Knowledge) -> Iterator[Derivation]:
    """Yield every derivation of `node` whose premises are known."""
    indices = activations(known, node)
    if indices:  # a node of stored numbers alone has nothing to reveal
        yield from node.op.derive(node, known)
    if isinstance(node.op, Unsupported):
        return
    inputs = tuple(value(node.inputs[i]) for i in dict.fromkeys(indices))
    if known.exact(*inputs):
        for output in node.outputs:
            yield Forward(node.name, value(output), inputs)
        outputs = tuple(gradient(output) for output in node.outputs)
        if indices and known.exact(*outputs):
            for i in indices:
                if known.graph.tensors[node.inputs[i]].dtype.startswith(("float", "bfloat")):
                    fact = known.input_gradient_fact(node, i)
                    yield Backward(node.name, fact, (*outputs, *inputs))
    for output in node.outputs:
        if not known.graph.uses[output] and output not in known.graph.outputs:
            yield UnusedGradient(node.name, gradient(output))
    yield from node.op.parameter_gradients(node, known)


def affine_gradients(node: Node, known: Knowledge, index: int) -> Iterator[Derivation]:
    """The gradient of input `index` of an operator that is affine in it."""
    outputs = tuple(gradient(output) for output in node.outputs)
    if known.exact(*outputs):
        yield AffineGradient(node.name, known.input_gradient_fact(node, index), outputs)


def selected_gradient(node: Node, known: Knowledge, parameter: str | None) -> Iterator[Derivation]:
    """The gradient of an output that holds elements of a parameter, each at most once."""
    if known.observed(parameter):
        yield SelectedParameterGradient(node.name, gradient(node.outputs[0]))
