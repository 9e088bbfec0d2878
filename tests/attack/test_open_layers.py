"""Layers below the end of a leak path: their equations from the shared gradients alone."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from claims import graph_of
from torch import nn

from leakaudit.attack.reconstruct import reconstruct
from leakaudit.confirm.client import share_gradient
from leakaudit.confirm.confirm import load_weights
from leakaudit.confirm.probes import make_probe
from leakaudit.leakpath.path import find_leak_path

SHAPE = (1, 3, 16, 16)


def attack(activation: nn.Module, filters: int, dtype=torch.float64):
    """Attack a network whose first layer has these filters; returns the truth and the result."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, filters, 5, stride=2, padding=2),
        activation,
        nn.Conv2d(filters, 8, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(8 * 8 * 8, 10),
    )
    graph = graph_of(module, SHAPE)
    weights = load_weights(graph, torch.device("cpu"))
    (name,) = graph.inputs
    inputs = {name: make_probe(SHAPE, 0).values}
    truth = share_gradient(graph, weights, inputs, "cross-entropy", dtype, 0)
    assert not find_leak_path(graph, "cross-entropy").report.reaches_input or filters > 4
    return graph, weights, truth, reconstruct(graph, weights, truth.gradients, "cross-entropy")


@pytest.mark.parametrize("activation", [nn.LeakyReLU(0.2), nn.ReLU()], ids=["LeakyReLU", "ReLU"])
def test_its_equations_are_the_true_ones(activation: nn.Module) -> None:
    graph, weights, truth, result = attack(activation, 4)
    node = graph.nodes[0]
    assert set(result.open_layers) == {node.name}
    found = result.open_layers[node.name]
    (o,) = node.outputs
    G, expected = found.system.G, truth.activation_gradients[o]
    torch.testing.assert_close(G, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))
    output = truth.values[o]
    on = output > 0 if isinstance(activation, nn.ReLU) else torch.ones_like(output, dtype=bool)
    assert torch.equal(found.system.mask > 0, on)
    bias = weights[node.parameter("bias")].view(1, -1, 1, 1)
    unbiased = torch.where(on, output - bias, 0.0)
    torch.testing.assert_close(found.system.o, unbiased, rtol=0, atol=1e-9)
    if isinstance(activation, nn.ReLU):
        assert found.inequalities is not None
        assert found.inequalities.count == int((~on).sum()) > 0
        assert bool((found.inequalities.low <= output - bias + 1e-12).all())
        assert bool((output - bias <= found.inequalities.high + 1e-12).all())
        # Only what is off is bounded, and by 0.
        assert torch.equal(torch.isfinite(found.inequalities.high), ~on)
    else:
        assert found.inequalities is None


def test_float32_gradients_leave_rounding_alone() -> None:
    graph, _, truth, result = attack(nn.ReLU(), 4, torch.float32)
    system = result.open_layers[graph.nodes[0].name].system
    (o,) = graph.nodes[0].outputs
    expected = truth.activation_gradients[o]
    assert float((system.G - expected).abs().max()) < 1e-4 * float(expected.abs().max())
    assert torch.equal(system.mask > 0, truth.values[o] > 0)


def test_a_layer_that_is_solved_is_not_open() -> None:
    graph, _, _, result = attack(nn.LeakyReLU(0.2), 12)
    assert graph.inputs[0] in result.values
    assert result.open_layers == {}
