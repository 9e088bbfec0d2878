"""Outputs at the end of an activation's range, where rounding decides what they stand for."""

from __future__ import annotations

import pytest
import torch
from hand_built import client_gradients, graph_of, network, probe, weights_of
from torch import nn

from leakaudit.attack.reconstruct import Reconstruction, reconstruct

IMAGE = (1, 1, 8, 8)
BOTH = {torch.float64: 1e-9, torch.float32: 1e-8}  # the mean squared error that is left


def walk(
    act: type[nn.Module], dtype: torch.dtype, bias: float, layer: int, filters: int
) -> tuple[Reconstruction, torch.Tensor]:
    """Reconstruct where the first `filters` of one of two convolutions have this bias."""
    model = network(
        *(nn.Conv2d(1, 6, 3, padding=1), act(), nn.Conv2d(6, 6, 3, padding=1), act()),
        *(nn.Flatten(), nn.Linear(6 * 64, 6)),
    )
    with torch.no_grad():
        model[layer].bias[:filters] = bias
    x = probe(IMAGE)
    # The client computes in the precision of its gradients: there saturation is rounded.
    gradients = client_gradients(model.to(dtype), x.to(dtype), "cross-entropy", dtype)
    model.double()
    return reconstruct(graph_of(model, IMAGE), weights_of(model), gradients, "cross-entropy"), x


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize(
    ("act", "bias"),
    [
        *((nn.Sigmoid, bias) for bias in (5.0, 10.0, 15.0, 20.0, 30.0, 36.0, 50.0)),
        *((nn.Tanh, bias) for bias in (-20.0, 5.0, 10.0, 15.0, 20.0)),
    ],
)
def test_a_saturated_channel_does_not_contradict_the_others(
    act: type[nn.Module], bias: float, dtype: torch.dtype, layer: int
) -> None:
    result, x = walk(act, dtype, bias, layer, filters=1)
    assert result.broken is None
    assert float((result.values["input"].tensor - x).square().mean()) < BOTH[dtype]


@pytest.mark.parametrize("filters", [4, 6])
@pytest.mark.parametrize("act", [nn.Sigmoid, nn.Tanh])
def test_a_saturated_layer_says_why_its_equations_are_too_few(
    act: type[nn.Module], filters: int
) -> None:
    result, _ = walk(act, torch.float32, 40.0, layer=2, filters=filters)
    assert result.broken is not None
    assert "input" not in result.values
    assert "saturated" in result.broken.reason
