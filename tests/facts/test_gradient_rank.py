"""Bounds on what an operator passes back, against what differentiation gives."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given, settings, strategies as st
from operator_case import Case
from operator_cases import CASES

from leakaudit.execute import run
from leakaudit.facts.gradient_rank import GradientRank, passed_back
from leakaudit.graph import Graph, Node, Parameter, Tensor


class NoWeights:
    """Execution is handed the numbers; bounds need none."""

    def load(self, name: str) -> object:
        raise KeyError(name)


def one_node(case: Case) -> tuple[Graph, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The case as a graph, its stored numbers, and its inputs."""
    reference = case.reference(case.inputs, case.parameters)
    names = [f"x{i}" for i in range(len(case.inputs))]
    outputs = [f"y{i}" for i in range(len(reference))]
    stored = {
        n: x for i, (n, x) in enumerate(zip(names, case.inputs, strict=True)) if i in case.stored
    }
    inputs = {n: x for n, x in zip(names, case.inputs, strict=True) if n not in stored}
    weights = stored | {f"p.{role}": x for role, x in case.parameters.items()}
    kinds = {True: "float64", False: "int64"}
    tensors = {
        n: Tensor(n, tuple(x.shape), kinds[x.is_floating_point()])
        for n, x in [*inputs.items(), *zip(outputs, reference, strict=True)]
    }
    parameters = {
        n: Parameter(n, tuple(x.shape), kinds[x.is_floating_point()], False)
        for n, x in weights.items()
    }
    roles = tuple((role, f"p.{role}") for role in case.parameters)
    node = Node("layer", case.op, tuple(names), tuple(outputs), roles)
    graph = Graph(
        "one", "test", tuple(inputs), tuple(outputs), tensors, parameters, (node,), NoWeights()
    )
    return graph, weights, inputs


def limited_gradient(
    shape: tuple[int, ...], generator: torch.Generator
) -> tuple[torch.Tensor, GradientRank]:
    """A gradient that is limited at random, and its bounds."""

    def below(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    supports = []
    for size in shape:
        some = sum(1 << i for i in range(size) if below(2)) or 1 << below(size)
        supports.append(some if below(2) else (1 << size) - 1)
    total = torch.zeros(shape, dtype=torch.float64)
    terms = []
    for _ in range(1 + below(2)):
        blocks: dict[int, list[int]] = {}
        for axis in range(len(shape)):
            blocks.setdefault(below(len(shape)), []).append(axis)
        term, ranks = [], []
        for axes in blocks.values():
            ranks.append(1 + below(min(3, prod(shape[a] for a in axes))))
            term.append((frozenset(axes), ranks[-1]))
        # Tucker: a core with one axis per block, spread over the block's axes.
        part = torch.randn(ranks, generator=generator, dtype=torch.float64)
        for axes, rank in zip(blocks.values(), ranks, strict=True):
            size = prod(shape[a] for a in axes)
            factor = torch.randn(rank, size, generator=generator, dtype=torch.float64)
            part = torch.tensordot(part, factor, dims=([0], [0]))
        order = [a for axes in blocks.values() for a in axes]
        part = part.reshape([shape[a] for a in order])
        total += part.permute([order.index(a) for a in range(len(shape))])
        terms.append(tuple(term))
    for axis, mask in enumerate(supports):
        keep = torch.tensor([float(mask >> i & 1) for i in range(shape[axis])], dtype=torch.float64)
        total *= keep.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return total, GradientRank(shape, tuple(supports), tuple(terms))


def unfolding_rank(x: torch.Tensor, axes: list[int]) -> int:
    rest = [a for a in range(x.dim()) if a not in axes]
    rows = prod(x.shape[a] for a in axes)
    return int(torch.linalg.matrix_rank(x.permute([*axes, *rest]).reshape(rows, -1), rtol=1e-9))


DIFFERENTIABLE = [
    case for case in CASES if case.inputs and any(x.is_floating_point() for x in case.inputs)
]


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**31))
def test_no_gradient_exceeds_its_bounds(case: Case, seed: int) -> None:
    check_bounds(case, seed)


@pytest.mark.slow
@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
@settings(max_examples=200)
@given(seed=st.integers(0, 2**31))
def test_no_gradient_of_many_exceeds_its_bounds(case: Case, seed: int) -> None:
    check_bounds(case, seed)


def check_bounds(case: Case, seed: int) -> None:
    graph, weights, inputs = one_node(case)
    (node,) = graph.nodes
    inputs = {
        n: x.clone().requires_grad_() if x.is_floating_point() else x for n, x in inputs.items()
    }
    values = run(graph, weights, inputs)
    generator = torch.Generator().manual_seed(seed)
    given_ = [limited_gradient(graph.tensors[name].shape, generator) for name in node.outputs]
    loss = sum((values[n] * g).sum() for n, (g, _) in zip(node.outputs, given_, strict=True))
    if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
        return  # floor, comparisons: nothing passes back
    for index, name in enumerate(node.inputs):
        x = inputs.get(name)
        if x is None or not x.requires_grad or node.inputs.count(name) > 1:
            continue
        (dx,) = torch.autograd.grad(loss, x, retain_graph=True, allow_unused=True)
        if dx is None:
            continue
        bounds = passed_back(graph, node, index, [bound for _, bound in given_])
        assert bounds.shape == dx.shape
        for axis, mask in enumerate(bounds.supports):
            outside = [i for i in range(dx.shape[axis]) if not mask >> i & 1]
            assert not dx.index_select(axis, torch.tensor(outside, dtype=torch.int64)).any()
        for axis in range(dx.dim()):
            assert unfolding_rank(dx, [axis]) <= bounds.rank(axis)
        if len(bounds.terms) == 1:
            for block, rank in bounds.terms[0]:
                assert unfolding_rank(dx, sorted(block)) <= rank
