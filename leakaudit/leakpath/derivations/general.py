"""Derivations that hold for any operator: forward, backward, gradients from parameters."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import ClassVar

from leakaudit.graph import Node
from leakaudit.leakpath.facts import Derivation, gradient, value
from leakaudit.leakpath.knowledge import Knowledge
from leakaudit.operators import Add, Embedding, Gather, Reshape, Slice, Sub, Transpose, Unsupported


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


class AddedParameterGradient(Derivation):
    kind: ClassVar[str] = "added-parameter-gradient"
    text: ClassVar[str] = (
        "the parameter added here has the tensor's own shape: its gradient is the tensor's gradient"
    )


class SelectedParameterGradient(Derivation):
    kind: ClassVar[str] = "selected-parameter-gradient"
    text: ClassVar[str] = (
        "the tensor holds elements of a parameter, each at most once: its gradient is theirs"
    )


class OperandGradient(Derivation):
    kind: ClassVar[str] = "operand-gradient"
    text: ClassVar[str] = "a sum has the gradient of each of its operands"


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


def shape(known: Knowledge, name: str) -> tuple[int, ...]:
    """Shape of a tensor or parameter."""
    stored = known.graph.tensors.get(name) or known.graph.parameters[name]
    return stored.shape


def size(known: Knowledge, name: str) -> int:
    """Number of elements of a tensor or parameter."""
    return prod(shape(known, name))


def derive(node: Node, known: Knowledge) -> Iterator[Derivation]:
    """What holds for every understood operator."""
    if isinstance(node.op, Unsupported):
        return
    indices = activations(known, node)
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
    yield from _from_parameters(node, known)


def affine_gradients(node: Node, known: Knowledge, index: int) -> Iterator[Derivation]:
    """The gradient of input `index` of an operator that is affine in it."""
    outputs = tuple(gradient(output) for output in node.outputs)
    if known.exact(*outputs):
        yield AffineGradient(node.name, known.input_gradient_fact(node, index), outputs)


def _from_parameters(node: Node, known: Knowledge) -> Iterator[Derivation]:
    """Gradients of activations that equal gradients of parameters."""
    output = node.outputs[0]
    match node.op:
        case Add() | Sub():
            for name in node.inputs:
                if size(known, name) != size(known, output):
                    continue
                if name in known.graph.parameters and known.observed(name):
                    yield AddedParameterGradient(node.name, gradient(output))
            for i in activations(known, node):
                if size(known, node.inputs[i]) == size(known, output):
                    fact = known.input_gradient_fact(node, i)
                    if known.exact(fact):
                        yield OperandGradient(node.name, gradient(output), (fact,))
        case Reshape() | Transpose() | Slice():
            if known.observed(node.inputs[0]):
                yield SelectedParameterGradient(node.name, gradient(output))
        case Gather(indices=indices):
            if known.observed(node.inputs[0]) and len(set(indices)) == len(indices):
                yield SelectedParameterGradient(node.name, gradient(output))
        case Embedding():
            # That no row is read twice needs the index itself: the replay checks it.
            if node.inputs[0] in known.graph.parameters and known.observed(
                node.parameter("weight")
            ):
                yield SelectedParameterGradient(node.name, gradient(output))
        case _:
            return
