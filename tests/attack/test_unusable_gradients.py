"""Gradients that are no numbers, or that underflow: named for what they are, never a success."""

from __future__ import annotations

from typing import Any

from hand_built import client_gradients, graph_of, network, probe, weights_of
from torch import nn

from leakaudit.attack.reconstruct import reconstruct

LOSS = "cross-entropy"
SHAPE = (1, 1, 8, 8)


def attack(change: dict[str, float]) -> Any:
    """Reconstruct from gradients of which some are multiplied."""
    model = network(
        nn.Conv2d(1, 12, 3, padding=1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(768, 6)
    )
    sent = {
        name: change.get(name, 1.0) * g
        for name, g in client_gradients(model, probe(SHAPE), LOSS).items()
    }
    return reconstruct(graph_of(model, SHAPE), weights_of(model), sent, LOSS)


def test_nan_is_not_called_an_overflow() -> None:
    result = attack({"0.weight": float("nan")})
    assert result.values == {}
    assert "are no numbers (NaN)" in result.broken.reason
    assert "overflow" not in result.broken.reason


def test_nan_and_infinity_are_told_apart() -> None:
    result = attack({"0.weight": float("nan"), "0.bias": float("inf")})
    nan, infinite = result.broken.reason.split("; ")
    assert "0.weight are no numbers (NaN)" in nan
    assert "0.bias overflow float64" in infinite


def test_a_vanished_weight_gradient_is_no_input_of_zeros() -> None:
    assert attack({}).broken is None  # the gradient constraints alone have full rank
    result = attack({"0.weight": 0.0})
    assert "underflow" in result.broken.reason
    assert "input" not in result.values
