"""Inequalities from the flat ends of activations: true of the output, and as many as are flat."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hand_built import graph_of, network, probe, weights_of
from torch import nn

from leakaudit.attack.partial.inequalities import saturation_inequalities
from leakaudit.execute import run
from leakaudit.graph import Graph, Node, Parameter, Tensor
from leakaudit.operators import BatchNorm

SHAPE = (1, 3, 6, 6)


def values_of(graph: Graph, weights: dict[str, Any]) -> dict[str, Any]:
    return dict(run(graph, weights, {"input": probe(SHAPE)}))


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.3, 0.2), nn.Hardsigmoid()],
    ids=lambda m: type(m).__name__,
)
def test_they_hold_and_there_is_one_for_each_flat_output(activation: nn.Module) -> None:
    model = network(nn.Conv2d(3, 5, 3), activation, scale=1.5)
    graph, weights = graph_of(model, SHAPE), weights_of(model)
    values = values_of(graph, weights)
    found = saturation_inequalities(graph, graph.nodes[0], weights, values)
    assert found is not None
    o = model[0](probe(SHAPE)).detach()
    x = o.clone().requires_grad_()
    (slope,) = torch.autograd.grad(activation(x).sum(), x)
    assert found.count == int((slope == 0).sum()) > 0
    assert bool((o <= found.high + 1e-12).all())
    assert bool((o >= found.low - 1e-12).all())
    # They are no weaker than they could be: at the bound the activation starts to move.
    bound = torch.where(torch.isfinite(found.high), found.high, found.low)
    flat = slope == 0
    inward = torch.where(torch.isfinite(found.high), 1e-6, -1e-6)
    moved = activation(bound + inward) - activation(bound)
    assert bool((moved[flat] != 0).all())


@pytest.mark.parametrize("scales", [(1.0, 2.0, 0.5), (-1.0, 2.0, -0.5)])
def test_batch_normalisation_between_may_turn_them_round(scales: tuple[float, ...]) -> None:
    model = network(nn.Conv2d(3, 3, 3), nn.ReLU(), scale=1.5)
    plain, weights = graph_of(model, SHAPE), weights_of(model)
    more = {
        "mean": torch.tensor([0.1, -0.2, 0.3]),
        "variance": torch.tensor([1.0, 0.5, 2.0]),
        "scale": torch.tensor(scales),
        "bias": torch.tensor([0.2, -0.1, 0.0]),
    }
    weights |= {f"bn.{role}": value.double() for role, value in more.items()}
    convolution, relu = plain.nodes
    roles = tuple((role, f"bn.{role}") for role in more)
    norm = Node("bn", BatchNorm(1e-5), ("t0",), ("normed",), roles)
    relu = replace(relu, inputs=("normed",))
    graph = replace(
        plain,
        nodes=(convolution, norm, relu),
        tensors={**plain.tensors, "normed": Tensor("normed", (1, 3, 4, 4), "float64")},
        parameters={
            **plain.parameters,
            **{name: Parameter(name, (3,), "float64", False) for _, name in roles},
        },
    )
    values = values_of(graph, weights)
    found = saturation_inequalities(graph, convolution, weights, values)
    assert found is not None
    assert found.count == int((values["t1"] == 0).sum()) > 0
    assert bool((values["t0"] <= found.high + 1e-9).all())
    assert bool((values["t0"] >= found.low - 1e-9).all())
    assert bool(torch.isfinite(found.low).any()) is (min(scales) < 0)


@pytest.mark.parametrize(
    "model",
    [
        network(nn.Conv2d(3, 5, 3), nn.LeakyReLU(0.1)),
        network(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.ReLU()),
        network(nn.Conv2d(3, 5, 3)),
    ],
    ids=["nowhere flat", "something between", "nothing behind"],
)
def test_there_are_none_elsewhere(model: nn.Sequential) -> None:
    graph, weights = graph_of(model, SHAPE), weights_of(model)
    values = values_of(graph, weights)
    assert saturation_inequalities(graph, graph.nodes[0], weights, values) is None
