"""Search for an input behind poolings: what comes back, and what must never be believed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from hand_built import client_gradients, graph_of, weights_of
from torch import nn

from leakaudit.attack.reconstruct import reconstruct
from leakaudit.attack.search import least_squares, search as searching
from leakaudit.attack.search.problem import NotTried, pose
from leakaudit.attack.search.search import SearchResult, exactly_known, search, search_after
from leakaudit.confirm.metrics import mse, psnr
from leakaudit.confirm.probes import make_probe
from leakaudit.equations.known import Known
from leakaudit.graph import Graph
from leakaudit.leakpath.path import find_leak_path

LOSS = "cross-entropy"
SHAPE = (1, 1, 12, 12)


def two_poolings(first: int = 24, second: int = 48, head: int = 40) -> nn.Sequential:
    """Two convolutions 5x5 with ReLU and max pooling, a head of two layers; torch's own weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, first, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(9 * second, head),
        nn.ReLU(),
        nn.Linear(head, 6),
    ).double()


def attack(
    model: nn.Sequential,
    x: torch.Tensor,
    dtype: torch.dtype = torch.float64,
    seconds: float = 600.0,
    seed: int = 0,
) -> SearchResult:
    graph, weights = graph_of(model, tuple(x.shape)), weights_of(model)
    gradients = client_gradients(model, x, LOSS, dtype)
    path = find_leak_path(graph, LOSS)
    assert not path.report.reaches_input
    result = reconstruct(graph, weights, gradients, LOSS)
    return search_after(
        path, weights, gradients, result, seconds=seconds, seed=seed, value_range=(0.0, 1.0)
    )


def features_of(model: nn.Sequential, x: torch.Tensor) -> tuple[Graph, dict[str, Known]]:
    """The graph, and what comes out of the last pooling as the only thing known."""
    with torch.no_grad():
        return graph_of(model, tuple(x.shape)), {"t5": Known(model[:6](x))}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_input_behind_two_poolings_comes_back(dtype: torch.dtype) -> None:
    x = make_probe(SHAPE, 0).values
    found = attack(two_poolings(), x, dtype)
    assert found.recovered, found.attempts
    assert (found.target, found.features) == ("input", "t5")
    assert psnr(mse(found.x, x)) >= 100
    assert found.residual <= found.tolerance
    assert found.uncertainty is not None
    assert found.uncertainty < 1e-4
    assert found.misfit is not None
    assert found.misfit < 1e-4


def test_equal_runs_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, value in (("STARTS", 2), ("ROUNDS", 1), ("_LAST_STEPS", 1)):
        monkeypatch.setattr(searching, limit, value)
    x = make_probe(SHAPE, 1).values
    first, second = (attack(two_poolings(), x, seed=3) for _ in range(2))
    assert len(first.attempts) == 2
    assert torch.equal(first.x, second.x)
    assert (first.evaluations, first.attempts) == (second.evaluations, second.attempts)


def test_too_few_known_numbers_are_not_tried() -> None:
    """144 unknowns: the features are 27, and nothing of the gradients is known with them."""
    model = two_poolings(12, 3)
    graph, known = features_of(model, make_probe(SHAPE, 0).values)
    with pytest.raises(NotTried, match="144 unknowns, and at most 27 known numbers"):
        search(graph, weights_of(model), known, seconds=5)


def test_features_of_zeros_are_not_tried() -> None:
    """A dead network: every input that leaves it dead would fit."""
    model = two_poolings(4, 24)
    graph, known = features_of(model, make_probe(SHAPE, 0).values)
    dead = {"t5": replace(known["t5"], tensor=torch.zeros_like(known["t5"].tensor))}
    with pytest.raises(NotTried, match="0 throughout"):
        search(graph, weights_of(model), dead, seconds=5)


def test_gradients_below_a_narrow_layer_do_not_count() -> None:
    """Whatever is known behind 36 numbers depends on the input through these alone."""
    model = two_poolings(1, 24)
    x = make_probe(SHAPE, 0).values
    with pytest.raises(NotTried, match="144 unknowns, and at most 62 known numbers"):
        attack(model, x)  # 36 values, 25 weights and 1 bias of the first layer


def test_features_that_no_input_gives_are_no_success() -> None:
    model = two_poolings(4, 24)
    x = make_probe(SHAPE, 0).values
    graph, known = features_of(model, x)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(known["t5"].tensor.shape, generator=generator, dtype=torch.float64)
    wrong = {"t5": replace(known["t5"], tensor=known["t5"].tensor + 0.2 * noise)}
    found = search(graph, weights_of(model), wrong, seconds=3)
    assert not found.recovered
    assert found.residual > found.tolerance


def test_one_input_of_many_that_fit_is_no_success() -> None:
    """The layer sees the mean of every 2x2 square only; its output has numbers enough."""
    model = nn.Sequential(nn.Conv2d(1, 24, 2, stride=2), nn.ReLU(), nn.Flatten()).double()
    with torch.no_grad():
        model[0].weight.fill_(0.25)
    x = make_probe(SHAPE, 0).values
    with torch.no_grad():
        known = {"t1": Known(model[:2](x))}
    found = search(graph_of(model, SHAPE), weights_of(model), known, seconds=10)
    assert found.residual <= found.tolerance
    assert not found.recovered
    assert found.reason == "it gives the features, as other inputs near it do"
    assert found.uncertainty is not None
    assert found.uncertainty > 0.1


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_it_ends_in_time(seconds: float) -> None:
    x = make_probe(SHAPE, 0).values
    started = time.process_time()
    found = attack(two_poolings(), x, seconds=seconds)
    assert time.process_time() - started < seconds + 2
    assert not found.recovered
    assert found.x.shape == x.shape


def test_what_is_known_up_to_a_factor_is_not_used() -> None:
    """A head without bias under a loss that fixes no scale."""
    model = two_poolings()
    model[7] = nn.Linear(432, 40, bias=False).double()
    model[9] = nn.Linear(40, 6, bias=False).double()
    x = make_probe(SHAPE, 0).values
    graph, gradients = graph_of(model, SHAPE), client_gradients(model, x, "mse")
    path = find_leak_path(graph, "mse")
    result = reconstruct(graph, weights_of(model), gradients, "mse")
    assert result.values
    assert exactly_known(path, result.values) == {}
    with pytest.raises(NotTried, match="no features"):
        search_after(path, weights_of(model), gradients, result, seconds=5)


def test_segments_start_at_layers_and_cover_everything() -> None:
    model = two_poolings()
    x = make_probe(SHAPE, 0).values
    graph, known = features_of(model, x)
    gradients = client_gradients(model, x, LOSS)
    slopes = {"t5": Known(torch.ones_like(known["t5"].tensor))}
    problem = pose(graph, weights_of(model), known, slopes, gradients)
    first, second = problem.segments
    assert (first.source, first.sink) == ("input", "t2")
    assert (second.source, second.sink) == ("t2", "t5")
    assert second.parameters == ("3.weight", "3.bias")
    assert problem.residual(problem.forward(problem.segments, x)) < 1e-14
    without = pose(graph, weights_of(model), known, {}, gradients)
    assert not without.gradients


class TestLeastSquares:
    @staticmethod
    def budget() -> least_squares.Budget:
        return least_squares.Budget(time.perf_counter() + 60)

    @staticmethod
    def residual() -> Callable[[torch.Tensor], torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        A = torch.randn((30, 8), generator=generator, dtype=torch.float64)
        b = torch.randn(30, generator=generator, dtype=torch.float64)
        return lambda x: (A @ x).tanh() - b

    def test_products_are_the_jacobian_and_its_adjoint(self) -> None:
        residual = self.residual()
        x = torch.linspace(-1, 1, 8, dtype=torch.float64)
        here = least_squares.Linearised(residual, x, self.budget())
        J = torch.autograd.functional.jacobian(residual, x)
        d, r = torch.ones_like(x), torch.linspace(0, 1, 30, dtype=torch.float64)
        assert torch.allclose(here.mv(d), J @ d, atol=1e-14)
        assert torch.allclose(here.rmv(r), J.T @ r, atol=1e-14)
        damped = torch.linalg.solve(J.T @ J + 0.1 * torch.eye(8).double(), J.T @ r)
        assert torch.allclose(here.solve(r, 0.1, 50), damped, atol=1e-10)
        generator = torch.Generator().manual_seed(0)
        mean = float((J.T @ J).diagonal().mean())
        assert here.mean_diagonal(generator, 500) == pytest.approx(mean, rel=0.1)

    def test_gauss_newton_ends_at_a_minimum(self) -> None:
        residual = self.residual()
        start = torch.zeros(8, dtype=torch.float64)
        x = least_squares.gauss_newton(residual, start, self.budget(), steps=60, iterations=20)
        here = least_squares.Linearised(residual, x, self.budget())
        assert here.r.norm() < residual(start).norm()
        assert here.rmv(here.r).norm() < 0.05 * here.r.norm()

    def test_a_budget_that_is_spent_raises(self) -> None:
        spent = least_squares.Budget(time.perf_counter() - 1)
        with pytest.raises(least_squares.TimeUp):
            least_squares.Linearised(self.residual(), torch.zeros(8).double(), spent)
