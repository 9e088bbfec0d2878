"""Whatever the leak path claims of a random network, its replay finds, and the truth confirms."""

from __future__ import annotations

import io
import random

import pytest
import torch
from torch import nn

from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.pt2_model import load_bytes
from leakaudit.graph import Graph
from leakaudit.leakpath.facts import Kind, Quality
from leakaudit.leakpath.path import derivation_tree, find_leak_path
from leakaudit.rconv.confirm import load_weights
from leakaudit.rconv.probes import make_probe
from leakaudit.rconv.replay import replay
from leakaudit.rconv.state import PathBroken, State
from leakaudit.rconv.victim import share_gradient

ACTIVATIONS = [
    lambda: nn.LeakyReLU(0.2),
    nn.ReLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.ELU,
    nn.Softplus,
    lambda: nn.PReLU(init=0.3),
    nn.SELU,
    nn.Identity,
]


class Residual(nn.Module):
    """x + branch(x), or the same through a projection."""

    def __init__(self, channels: int, draw: random.Random) -> None:
        super().__init__()
        inner = draw.choice([channels, channels + 2])
        kernel = draw.choice([3, 5])
        self.branch = nn.Sequential(
            nn.Conv2d(channels, inner, kernel, padding=kernel // 2),
            draw.choice(ACTIVATIONS)(),
            nn.Conv2d(inner, channels, kernel, padding=kernel // 2),
        )
        self.activation = draw.choice(ACTIVATIONS)()
        self.norm = nn.BatchNorm2d(channels) if draw.random() < 0.3 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.norm(x + self.branch(x)))


def network(seed: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A random network of covered operators and its input shape."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    height, width = draw.choice([(6, 6), (7, 5), (8, 8)])
    channels = draw.choice([1, 2, 3])
    shape = (1, channels, height, width)
    layers: list[nn.Module] = []
    x = torch.zeros(shape)
    for _ in range(draw.randint(1, 3)):
        kind = draw.random()
        if kind < 0.6 or not layers:
            groups = channels if draw.random() < 0.2 else 1
            filters = groups * draw.choice([4, 6, 8])
            kernel = (min(draw.choice([2, 3, 5]), x.shape[2]), min(draw.choice([1, 3]), x.shape[3]))
            layer: nn.Module = nn.Conv2d(
                channels,
                filters,
                kernel,
                stride=draw.choice([1, 1, 2]),
                padding=draw.choice([0, 1, 2]),
                groups=groups,
                bias=draw.random() < 0.7,
            )
            layers += [layer, draw.choice(ACTIVATIONS)()]
        elif kind < 0.85:
            layers.append(Residual(channels, draw))
        else:
            pools = [nn.AvgPool2d(2, 1), nn.MaxPool2d(2, 2)] if min(x.shape[2:]) > 1 else []
            layers.append(draw.choice([nn.ZeroPad2d(1), *pools]))
        x = torch.zeros(shape)
        for layer in layers:
            x = layer.eval()(x)
        channels = x.shape[1]
    head: list[nn.Module] = [nn.Flatten(), nn.Linear(x.numel(), 7, bias=draw.random() < 0.8)]
    return nn.Sequential(*layers, *head).eval(), shape


def graph_of(module: nn.Module, shape: tuple[int, ...]) -> Graph:
    program = torch.export.export(module, (torch.zeros(shape),))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return load_bytes(buffer.getvalue(), "random", LoadOptions())


def check(seed: int) -> tuple[int, bool]:
    """Replay every claim; the number of facts compared, and whether the input was among them."""
    module, shape = network(seed)
    graph = graph_of(module, shape)
    assert graph.inputs
    weights = load_weights(graph, torch.device("cpu"))
    truth = share_gradient(
        graph,
        weights,
        {graph.inputs[0]: make_probe(shape, seed).values},
        "cross-entropy",
        torch.float64,
        seed,
    )
    path = find_leak_path(graph, "cross-entropy")
    compared = 0
    reached = False
    for fact, history in path.knowledge.history.items():
        if fact.kind is Kind.CONTRIBUTION or history[-1][1].quality is not Quality.EXACT:
            continue
        gradients = dict(truth.gradients)
        state = State(graph, weights, gradients, torch.finfo(torch.float64).eps, "cross-entropy")
        if path.knowledge.graph.nodes[-1].parameter("bias") is None:
            continue  # the scale of a bias-free head is chosen in `reconstruct`
        try:
            for step in derivation_tree(path.knowledge, fact):
                state.known[step.conclusion] = replay(step, state)
        except PathBroken:
            continue  # a rank that is not full, a dead layer: said, not claimed
        known = state.known[fact]
        side = truth.values if fact.kind is Kind.VALUE else truth.activation_gradients
        if fact.tensor not in side:
            continue
        expected = side[fact.tensor]
        condition = max((s.condition or 1.0 for s in state.solutions.values()), default=1.0)
        scale = max(float(expected.abs().max()), 1e-12)
        error = float((known.tensor - expected).abs().max()) / scale
        assert error <= 1e-9 * max(condition, 1.0) ** len(state.solutions), (seed, str(fact))
        compared += 1
        reached |= fact.tensor in graph.inputs and fact.kind is Kind.VALUE
    return compared, reached


@pytest.mark.parametrize("block", range(6))
def test_claims_hold_numerically(block: int) -> None:
    results = [check(seed) for seed in range(block * 8, block * 8 + 8)]
    assert sum(compared for compared, _ in results) >= 8
    assert sum(compared for compared, _ in results) >= len(results)


@pytest.mark.slow
def test_claims_hold_numerically_for_many_more() -> None:
    results = [check(seed) for seed in range(1000, 1300)]
    assert sum(reached for _, reached in results) >= 30
