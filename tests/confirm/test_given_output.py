"""What weights alone tell of a layer's input, against LAPACK on the dense matrix of the layer."""

from __future__ import annotations

import pytest
import torch
from hand_built import graph_of, network, probe, weights_of
from torch import nn

from leakaudit.confirm.client import SharedGradient
from leakaudit.confirm.given_output import solve_given_output
from leakaudit.findings import Confirmation, Scope, Status

LAYERS = {
    "dense": ((1, 12), nn.Linear(12, 7)),
    "dense over tokens": ((2, 5, 12), nn.Linear(12, 7, bias=False)),
    "dense, wide": ((3, 6), nn.Linear(6, 9)),
    "convolution": ((1, 3, 6, 6), nn.Conv2d(3, 4, 3, stride=2, padding=1)),
    "convolution, wide": ((1, 2, 5, 5), nn.Conv2d(2, 5, 3, padding=1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_rank_and_minimum_norm_solution_are_those_of_the_dense_matrix(name: str) -> None:
    shape, layer = LAYERS[name]
    model = network(layer)
    graph, x = graph_of(model, shape), probe(shape)
    with torch.no_grad():
        offset = model(torch.zeros_like(x))
        z = model(x)
    matrix = torch.func.jacrev(model)(x).reshape(z.numel(), x.numel()).detach()
    expected = torch.linalg.lstsq(matrix, (z - offset).reshape(-1, 1), driver="gelsd").solution
    rank = int(torch.linalg.matrix_rank(matrix))

    (node,) = graph.nodes
    values = {node.inputs[0]: x, node.outputs[0]: z}
    base = Confirmation(Status.NOT_RUN, Scope.NONE, "", gradient_dtype="float32", seed=0)
    evidence = solve_given_output(
        base, graph, node, weights_of(model), SharedGradient({}, values, {})
    )
    assert evidence.rank == rank
    assert evidence.unknowns == x.numel()
    off = float((expected.reshape(shape) - x).square().mean())
    assert evidence.mse == pytest.approx(off, rel=1e-6, abs=1e-18)
    assert evidence.scope is Scope.LOCAL
    fixed = rank == x.numel()
    assert evidence.status is (Status.CONFIRMED if fixed else Status.NOT_REPRODUCED)
