"""What a stored condition hides has no part in anything, and what it keeps comes back exactly."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from claims import EPSILON, check_claims, graph_of
from one_node import execute_one
from operator_case import rand
from torch import nn

from leakaudit import operators as ops
from leakaudit.attack.replay import replay
from leakaudit.attack.state import State
from leakaudit.equations.known import Known
from leakaudit.facts.fact import Fact, Kind, Quality, gradient, value
from leakaudit.facts.general import AffineGradient
from leakaudit.graph import Graph
from leakaudit.operators.moved import MovedValue

LOWER = torch.ones(4, 4).tril().bool()


@pytest.mark.parametrize("hidden", [float("nan"), float("inf"), -float("inf")])
def test_what_is_hidden_may_be_no_number(hidden):
    x = torch.full((2, 4, 4), hidden, dtype=torch.float64)
    x[:, LOWER] = rand(2, int(LOWER.sum()))
    (y,) = execute_one(ops.Where(20), (LOWER, x, torch.zeros(())), [x.shape], stored=(0, 2))
    assert torch.equal(y[:, LOWER], x[:, LOWER])
    assert not y[:, ~LOWER].any()


class Choosing(nn.Module):
    """Between two layers: h where a stored mask says so, elsewhere a number or h reversed."""

    def __init__(self, kept: torch.Tensor, filling: float | None, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.register_buffer("kept", kept)
        self.filling = filling
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4)
        self.head = nn.Linear(4, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x).tanh()
        other = h.flip(1) if self.filling is None else self.filling
        return self.head(self.second(torch.where(self.kept, h, other)).sigmoid())


KEPT = torch.tensor([True, False, True, True])


def where_of(graph: Graph) -> tuple[str, ops.Where]:
    ((name, op),) = [(n.name, n.op) for n in graph.nodes if isinstance(n.op, ops.Where)]
    return name, op


@pytest.mark.parametrize("filling", [0.0, -3.0])
def test_a_path_leads_through_a_mask(filling):
    """tanh' is known where tanh is, and elsewhere its gradient is 0."""
    graph = graph_of(Choosing(KEPT, filling), (1, 4))
    assert where_of(graph)[1].kept == 3
    done = check_claims(graph, 5)
    assert done.steps["moved-value"] >= 2
    assert done.reached


def test_what_two_sides_show_in_parts_stays_in_parts():
    graph = graph_of(Choosing(KEPT, None), (1, 4))
    done = check_claims(graph, 5)
    assert done.compared[Kind.VALUE, Quality.KEPT] >= 2
    assert not done.reached


@pytest.mark.parametrize("index", [1, 2])
def test_derivations_are_those_of_brute_force_differentiation(index):
    """Of one node, against finite differences: dl/dx for l = sum(w · where(c, x, y))."""
    graph = graph_of(Choosing(KEPT, None), (1, 4))
    name, op = where_of(graph)
    node = graph.node(name)
    condition = KEPT.reshape(1, 4)
    sides = {node.inputs[1]: rand(1, 4, seed=1), node.inputs[2]: rand(1, 4, seed=2)}
    w = rand(1, 4, seed=3)
    (y,) = node.outputs
    state = State(graph, {node.inputs[0]: condition}, {"none": w}, EPSILON, "mse")
    state.known[gradient(y)] = Known(w)
    state.known[value(y)] = Known(torch.where(condition, *sides.values()))
    target = node.inputs[index]

    fact = Fact(Kind.CONTRIBUTION, target, name, index)
    back = replay(AffineGradient(name, fact, (gradient(y),)), state).tensor
    step = 1e-6
    for position in range(4):
        moved = []
        for sign in (1, -1):
            x = {key: side.clone() for key, side in sides.items()}
            x[target][0, position] += sign * step
            out = execute_one(op, (condition, *x.values()), [(1, 4)], stored=(0,))[0]
            moved.append(float((w * out).sum()))
        slope = (moved[0] - moved[1]) / (2 * step)
        assert float(back[0, position]) == pytest.approx(slope, abs=1e-8)

    known = replay(MovedValue(name, value(target), (value(y),), Quality.KEPT), state)
    places = condition if index == 1 else ~condition
    assert known.mask is not None
    assert torch.equal(known.mask, places)
    assert torch.equal(known.tensor[places], sides[target][places])


def test_a_mask_that_keeps_or_hides_everything():
    """Both are no choice: h itself, or a constant that says nothing of h."""
    everything = graph_of(Choosing(torch.ones(4).bool(), 0.0), (1, 4))
    assert not [n for n in everything.nodes if isinstance(n.op, ops.Where)]
    assert check_claims(everything, 5).reached
    nothing = graph_of(Choosing(torch.zeros(4).bool(), 0.0), (1, 4))
    done = check_claims(nothing, 5)
    assert where_of(nothing)[1].kept == 0
    assert not done.steps["moved-value"]
