"""Replay of rearrangements: elements are moved back."""

from __future__ import annotations

from torch import Tensor

from leakaudit.attack.state import State
from leakaudit.equations.known import Known
from leakaudit.graph import Node
from leakaudit.leakpath.derivations import rearrange
from leakaudit.leakpath.facts import gradient, value
from leakaudit.operators import Reshape, Transpose


def _move_back(state: State, node: Node, x: Tensor) -> Tensor:
    match node.op:
        case Reshape():
            return x.reshape(state.graph.tensors[node.inputs[0]].shape)
        case Transpose(permutation):
            back = sorted(range(len(permutation)), key=permutation.__getitem__)
            return x.permute(back)
        case _:
            raise TypeError(f"{node.name} does not only move elements")


def moved_value(step: rearrange.RearrangeValue, state: State) -> Known:
    node = state.graph.node(step.node)
    known = state.known[value(node.outputs[0])]
    mask = None if known.mask is None else _move_back(state, node, known.mask)
    return Known(_move_back(state, node, known.tensor), mask, known.error)


def moved_gradient(step: rearrange.RearrangeGradient, state: State) -> Known:
    node = state.graph.node(step.node)
    return Known(_move_back(state, node, state.known[gradient(node.outputs[0])].tensor))
