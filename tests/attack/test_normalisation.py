"""What normalisation shows: numbers and conditions, against autograd and dense least squares."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from case_audits import exported
from claims import check_claims
from torch import nn

from leakaudit.attack.reconstruct import reconstruct
from leakaudit.confirm.client import share_gradient
from leakaudit.confirm.confirm import load_weights
from leakaudit.facts.fact import Kind, Quality
from leakaudit.leakpath.path import find_leak_path


def drawn(module: nn.Module) -> nn.Module:
    """Affine parameters that are not 1 and 0, so that a mistake in them shows."""
    for part in module.modules():
        if isinstance(part, (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d, nn.RMSNorm)):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            if getattr(part, "bias", None) is not None:
                nn.init.uniform_(part.bias, -0.5, 0.5)
    return module


def below_a_head(norm: nn.Module, activation: Callable[[], nn.Module] = nn.GELU) -> nn.Module:
    """Six channels of 4 x 4, normalised, activated, averaged: no value comes from the head."""
    torch.manual_seed(0)
    average = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    return drawn(nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), norm, activation(), average)).double()


SHAPE = (1, 2, 4, 4)


def affine_facts(module: nn.Module, shape: tuple[int, ...] = SHAPE) -> list[Quality]:
    """How well the outputs are known that the affine parameters' gradients show."""
    known = find_leak_path(exported(module, shape), "cross-entropy").knowledge
    return [
        step.quality
        for history in known.history.values()
        for _, step in history
        if step.kind == "normalised-value"
    ]


@pytest.mark.parametrize("activation", [nn.GELU, nn.ReLU, nn.Tanh])
def test_the_output_follows_where_the_loss_depends_on_it(
    activation: Callable[[], nn.Module],
) -> None:
    module = below_a_head(nn.LayerNorm([6, 4, 4]), activation)
    graph = exported(module.double(), SHAPE)
    weights = load_weights(graph, torch.device("cpu"))
    x = torch.rand(SHAPE, dtype=torch.float64)
    shared = share_gradient(graph, weights, {graph.inputs[0]: x}, "cross-entropy", torch.float64, 0)
    found = reconstruct(graph, weights, shared.gradients, "cross-entropy").values["layer_norm"]
    silent = shared.activation_gradients["layer_norm"] == 0
    assert bool(silent.any()) is (activation is nn.ReLU)
    seen = ~silent
    assert torch.equal(torch.ones_like(seen) if found.mask is None else found.mask, seen)
    off = (found.tensor - shared.values["layer_norm"])[seen].abs().max()
    assert float(off) < 1e-12


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.LayerNorm([6, 4, 4]), SHAPE),
        (nn.LayerNorm([6, 4, 4], bias=False), SHAPE),
        (nn.LayerNorm([4, 4]), SHAPE),  # the channels share a scale
        (nn.LayerNorm([6, 4, 4]), (2, 2, 4, 4)),  # two examples share it
        (nn.GroupNorm(2, 6), SHAPE),  # the positions share it
    ],
    ids=["all", "without bias", "planes", "batch", "groups"],
)
def test_one_scale_and_one_bias_for_each_output_is_the_condition(
    norm: nn.Module, shape: tuple[int, ...]
) -> None:
    holds = norm.weight.numel() == 96 and norm.bias is not None and shape[0] == 1
    assert affine_facts(below_a_head(norm), shape) == [Quality.SEEN] * holds


def test_the_claims_about_it_hold() -> None:
    """No convolution stands below, whose equations would tell more."""
    average = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 4))
    module = drawn(nn.Sequential(nn.LayerNorm([2, 4, 4]), nn.GELU(), average)).double()
    done = check_claims(exported(module, SHAPE), 0)
    assert done.compared[Kind.VALUE, Quality.SEEN]
    assert done.steps["normalised-value"]
