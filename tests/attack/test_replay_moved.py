"""What is moved is found again, by the operator alone, against one element at a time."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from one_node import execute_one
from operator_case import Case, rand
from operator_cases import CASES

from leakaudit import operators as ops
from leakaudit.attack.replay import replay
from leakaudit.attack.state import State
from leakaudit.equations.known import Known
from leakaudit.facts.fact import value
from leakaudit.graph import Graph, Node, Parameter, Tensor
from leakaudit.operators.moved import MovedValue, Moves


class NoWeights:
    def load(self, name: str) -> object:
        raise KeyError(name)


def replayed(op: ops.Operator, inputs: list, outputs: list, stored=(), index=0) -> Known:
    """Input `index` as it is moved back from the outputs, each with a mask or None."""
    names = [f"x{i}" for i in range(len(inputs))]
    results = [f"y{i}" for i in range(len(outputs))]
    shapes = {
        **{names[i]: tuple(x.shape) for i, x in enumerate(inputs) if i not in stored},
        **{n: tuple(y.shape) for n, (y, _) in zip(results, outputs, strict=True)},
    }
    weights = {names[i]: inputs[i] for i in stored}
    graph = Graph(
        "one",
        "test",
        tuple(n for n in names if n not in weights),
        tuple(results),
        {n: Tensor(n, shape, "float64") for n, shape in shapes.items()},
        {n: Parameter(n, tuple(x.shape), "float64", False) for n, x in weights.items()},
        (Node("layer", op, tuple(names), tuple(results)),),
        NoWeights(),
    )
    state = State(graph, weights, {}, 1e-16, "mse")
    for name, (y, mask) in zip(results, outputs, strict=True):
        state.known[value(name)] = Known(y, mask, 0.5)
    premises = tuple(value(name) for name in results)
    return replay(MovedValue("layer", value(names[index]), premises), state)


def by_brute_force(op, inputs, shapes, stored, index):
    """Which elements stand somewhere in the outputs: those that change them."""
    x = inputs[index]
    found = torch.zeros(x.numel(), dtype=torch.bool)
    before = execute_one(op, inputs, shapes, stored=stored)
    for i in range(x.numel()):
        changed = x.flatten().clone()
        changed[i] += 1
        moved = [changed.reshape(x.shape) if j == index else y for j, y in enumerate(inputs)]
        after = execute_one(op, moved, shapes, stored=stored)
        found[i] = any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    return found.reshape(x.shape)


MOVING = [case for case in CASES if isinstance(case.op, Moves)]


@pytest.mark.parametrize("case", MOVING, ids=str)
def test_every_operator_finds_what_it_has_moved(case: Case) -> None:
    inputs = [x if i in case.stored else x.double() for i, x in enumerate(case.inputs)]
    outputs = case.reference(tuple(inputs), case.parameters)
    shapes = [tuple(y.shape) for y in outputs]
    known = [(y.double(), None) for y in outputs]
    for index, x in enumerate(inputs):
        if index in case.stored or x.dtype != torch.float64:
            continue
        found = replayed(case.op, inputs, known, case.stored, index)
        mask = torch.ones_like(x, dtype=torch.bool) if found.mask is None else found.mask
        assert torch.equal(mask, by_brute_force(case.op, inputs, shapes, case.stored, index))
        assert torch.equal(found.tensor[mask], x[mask])
        assert not found.tensor[~mask].any()
        assert found.error == 0.5


def test_every_kind_that_moves_is_among_them() -> None:
    moving = {kind for name in ops.__all__ if issubclass(kind := getattr(ops, name), Moves)}
    assert {type(case.op) for case in MOVING} == moving
    assert len(moving) == 9


@pytest.mark.parametrize("filling", [0.0, 1.0, -2.0, 5.5, torch.inf, -torch.inf, torch.nan])
def test_no_constant_is_taken_for_an_element(filling: float) -> None:
    op, x = ops.Pad((1, 2), (0, 1), "constant", filling), rand(2, 3)
    (y,) = execute_one(op, [x], [(3, 6)])
    found = replayed(op, [x], [(y, None)])
    assert found.mask is None
    assert torch.equal(found.tensor, x)


def test_an_element_is_taken_from_where_it_is_known() -> None:
    """Of two copies one is unknown; of an element all of whose copies are, nothing is said."""
    op, x = ops.Gather(0, (0, 1, 0, 1, 2), (5,)), rand(3)
    mask = torch.tensor([False, False, True, False, True])
    (y,) = execute_one(op, [x], [(5,)])
    found = replayed(op, [x], [(torch.where(mask, y, 99.0), mask)])
    assert found.mask is not None
    assert found.mask.tolist() == [True, False, True]
    assert torch.equal(found.tensor[found.mask], x[found.mask])


def test_parts_of_which_one_is_known_in_parts() -> None:
    op, x = ops.Split(1, (1, 2)), rand(2, 3)
    first, second = execute_one(op, [x], [(2, 1), (2, 2)])
    mask = torch.tensor([[True, False], [True, True]])
    found = replayed(op, [x], [(first, None), (torch.where(mask, second, 0.0), mask)])
    assert found.mask is not None
    assert found.mask.tolist() == [[True, True, False], [True, True, True]]
    assert torch.equal(found.tensor[found.mask], x[found.mask])


def test_pooling_over_windows_of_one_element_needs_no_inverse_either() -> None:
    """The replay asks only that the operator can be run."""
    op, x = ops.MaxPool((1,), (2,), (0,), (0,), (1,)), rand(1, 2, 5)
    (y,) = execute_one(op, [x], [(1, 2, 3)])
    found = replayed(op, [x], [(y, None)])
    assert found.mask is not None
    assert found.mask[0, 0].tolist() == [True, False, True, False, True]
    assert torch.equal(found.tensor[..., ::2], x[..., ::2])
