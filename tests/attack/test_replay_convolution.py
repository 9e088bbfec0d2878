"""Where gradient constraints alone fall short, the layer's output is taken in if it can be had."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hand_built import client_gradients, graph_of, network, probe, weights_of
from torch import nn

from leakaudit.attack.reconstruct import reconstruct
from leakaudit.attack.replay.convolution import layer_value
from leakaudit.attack.state import PathBroken, State
from leakaudit.equations.known import Known
from leakaudit.facts.fact import gradient, value
from leakaudit.operators.convolution import ConvolutionValue

EPS = torch.finfo(torch.float64).eps
SHAPE = (1, 2, 6, 6)
STEP = ConvolutionValue("0", value("input"), (gradient("t0"),))


def situation(live_columns: int, activation: nn.Module) -> tuple[State, Any, Any]:
    """16 filters of 18 taps, 72 unknowns; dl/do is 0 but on the first columns of the output."""
    model = network(nn.Conv2d(2, 16, 3, padding=1), activation, nn.Flatten(), nn.Linear(576, 4))
    x = probe(SHAPE)
    o = model[0](x).detach()
    generator = torch.Generator().manual_seed(3)
    G = torch.randn(o.shape, generator=generator, dtype=torch.float64)
    G[..., live_columns:] = 0
    weight = model[0].weight
    dw = torch.nn.grad.conv2d_weight(x, weight.shape, G, padding=1).detach()
    graph = graph_of(model, SHAPE)
    state = State(graph, weights_of(model), {"0.weight": dw}, EPS, "cross-entropy")
    state.known[gradient("t0")] = Known(G)
    state.known[gradient("t1")] = Known(torch.ones_like(G))
    return state, x, o


def test_gradient_constraints_that_suffice_are_left_alone() -> None:
    state, x, o = situation(live_columns=6, activation=nn.Sigmoid())
    state.known[value("t0")] = Known(torch.full_like(o, torch.nan))  # would show if it were used
    torch.testing.assert_close(layer_value(STEP, state).tensor, x)


def test_an_output_that_is_known_by_now_is_taken_in() -> None:
    state, x, o = situation(live_columns=1, activation=nn.Sigmoid())
    state.known[value("t0")] = Known(o)
    torch.testing.assert_close(layer_value(STEP, state).tensor, x)
    assert state.solutions["0"].rank == 72


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.LeakyReLU(0.2)])
def test_an_activation_is_inverted_for_it(activation: nn.Module) -> None:
    state, x, o = situation(live_columns=1, activation=activation)
    state.known[value("t1")] = Known(activation(o))
    torch.testing.assert_close(layer_value(STEP, state).tensor, x)


def test_an_activation_that_is_not_monotone_is_not_inverted() -> None:
    state, _, o = situation(live_columns=1, activation=nn.SiLU())
    state.known[value("t1")] = Known(nn.functional.silu(o))
    with pytest.raises(PathBroken, match="of 72 unknowns"):
        layer_value(STEP, state)


def test_without_any_output_the_path_breaks() -> None:
    state, _, _ = situation(live_columns=1, activation=nn.Sigmoid())
    with pytest.raises(PathBroken, match="of 72 unknowns"):
        layer_value(STEP, state)


def test_a_layer_below_skipped_pixels_is_reconstructed() -> None:
    """Both strided layers leave pixels unread; above them the gradient is 0 there."""
    model = network(
        nn.Conv1d(4, 12, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv1d(12, 12, 3, stride=2, padding=2, dilation=2),
        nn.LeakyReLU(0.1),
        nn.Conv1d(12, 16, 3, stride=2, padding=4, dilation=4),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.Linear(256, 5),
    )
    shape = (1, 4, 64)
    graph, x = graph_of(model, shape), probe(shape)
    gradients = client_gradients(model, x, "cross-entropy")
    result = reconstruct(graph, weights_of(model), gradients, "cross-entropy")
    assert result.broken is None
    recovered = result.values["input"]
    assert recovered.mask is not None
    torch.testing.assert_close(recovered.tensor[recovered.mask], x[recovered.mask])
