"""What the precision of the gradients drowns is not certified; runs that have arrived stay."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from dense_reference import Case, cases, layer
from hypothesis import given, settings, strategies as st

from leakaudit.equations.system import LayerSystem
from leakaudit.solvers import conjugate_gradients
from leakaudit.solvers.interface import Solution
from leakaudit.solvers.matrix_free import MatrixFree
from leakaudit.solvers.solve import solve_layer
from leakaudit.solvers.stacked import Stacked

DTYPES = {"float16": 1e-5, "bfloat16": 1e-4, "float32": 1e-8}


def system_of(case: Case, w: torch.Tensor, x: torch.Tensor, precision: float) -> LayerSystem:
    """The weight constraints of a layer, all outputs known."""
    o = case.convolution.output(x, w)
    return LayerSystem(
        case.convolution, case.geometry, w, None, None, o, torch.ones_like(o), precision
    )


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("filters", [12, 24])
def test_a_direction_below_the_precision_leaves_the_rank_open(name: str, filters: int) -> None:
    """Kernel = stride: the singular values of the layer are those of its weights alone."""
    dtype = getattr(torch, name)
    case = layer((16, 16), 2, stride=2, group_channels=3, group_filters=filters)
    x, w, _ = case.draw(0)
    U, s, V = torch.linalg.svd(w.flatten(1), full_matrices=False)
    s = torch.ones_like(s)
    s[-1] = DTYPES[name]
    weak = ((U * s) @ V).reshape(w.shape)
    system = system_of(case, weak, x, torch.finfo(dtype).eps)
    assert system.o is not None
    coarse = replace(system, o=system.o.to(dtype).double())
    assert MatrixFree().solve(coarse).rank is None
    s[-1] = 1.0
    strong = ((U * s) @ V).reshape(w.shape)
    assert MatrixFree().solve(system_of(case, strong, x, system.precision)).rank == x.numel()


def both(case: Case, seed: int, known: float) -> LayerSystem:
    x, w, G = case.draw(seed)
    o = case.convolution.output(x, w)
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(o.shape, generator=generator) < known).double()
    dw = case.convolution.weight_gradient(x, G)
    eps = torch.finfo(torch.float64).eps
    return LayerSystem(case.convolution, case.geometry, w, dw, G, o * mask, mask, eps)


@settings(deadline=None, max_examples=60)
@given(case=cases(), seed=st.integers(0, 2**31), known=st.sampled_from([0.5, 1.0]))
def test_rarer_stopping_tests_find_the_same(case: Case, seed: int, known: float) -> None:
    """On a GPU they come every eight iterations; an exact factor has arrived long before."""
    system = both(case, seed, known)

    def solved() -> list[Solution]:
        return [solve_layer(system), solve_layer(system, 0), Stacked().solve(system)]

    each = solved()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conjugate_gradients, "_interval", lambda _device: 8)
        eighth = solved()
    for one, other in zip(each, eighth, strict=True):
        assert torch.isfinite(other.x).all()
        assert other.residual <= max(2 * one.residual, 1e-11)
        if one.rank == other.rank == one.unknowns and (one.condition or math.inf) < 1e6:
            assert (one.x - other.x).norm() <= 1e-6 * one.x.norm() + 1e-12


@pytest.mark.parametrize("memory", [0, 2**30])
@pytest.mark.parametrize("precision", [2.0**-52, 2.0**-7])
def test_weights_of_zero_fix_nothing(memory: int, precision: float) -> None:
    case = layer((8, 8), 3, padding=1, group_channels=2, group_filters=24)
    x, w, G = case.draw(0)
    nothing = system_of(case, torch.zeros_like(w), x, precision)
    assert solve_layer(nothing, memory).rank == 0
    dw = case.convolution.weight_gradient(x, G)
    found = solve_layer(replace(nothing, dw=dw, G=G), memory)
    assert found.rank is None or found.rank > 0
    assert Stacked().solve(nothing).condition is None
