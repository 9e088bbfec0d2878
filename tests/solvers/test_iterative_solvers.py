"""Iterative solvers: least squares of minimum norm, and full rank claimed only where it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from dense_reference import Case, cases, layer
from hypothesis import assume, given, strategies as st
from solver_problems import (
    EPS,
    GAP,
    KNOWN,
    SEEDS,
    SUITE,
    check_full_rank_claim,
    check_singular_values,
    problem,
)

from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.band import BorderedBand
from leakaudit.solvers.dense_factor import DenseFactor
from leakaudit.solvers.matrix_free import MatrixFree
from leakaudit.solvers.phase_blocks import BorderedPhases
from leakaudit.solvers.select import choose
from leakaudit.solvers.solve import solve_layer


@pytest.mark.parametrize(
    "case",
    [
        layer((6, 6), 3, padding=1, group_filters=5),
        layer((6, 5), 3, stride=2, padding=1, group_filters=8, batch=2),
        layer((9,), 3, padding=1, groups=2, group_channels=2, group_filters=4),
        layer((3, 4, 3), 2, padding=1, group_filters=5),
        layer((7, 7), 2, stride=3, group_filters=4),
        layer((5, 5), 3, group_channels=3, group_filters=1),
    ],
    ids=["2d", "batch", "1d groups", "3d", "unread", "rank-deficient"],
)
def test_matrix_free_gives_the_minimum_norm_solution(case: Case) -> None:
    found = problem(case, 4)
    solution = solve_layer(found.system, memory=1)
    assert solution.solver.startswith("matrix-free conjugate gradients")
    for why in ("no factor fits into 0 MiB", "no factor is needed", "too many to factor"):
        if why in solution.reason:
            break
    else:
        pytest.fail(solution.reason)
    assert solution.iterations > 0
    assert solution.residual < 1e-10
    error = (solution.x.reshape(-1) - found.minimum_norm).norm()
    assert error < 1e-7 * found.minimum_norm.norm()
    s = found.singular_values
    s = s[s > GAP * s[0]]
    # Full rank over the unknowns that are read at all can be shown; a smaller one cannot.
    read = int((found.S.abs().sum(dim=0) > 0).sum())
    assert solution.rank in ({read, None} if len(s) == read else {None})
    # An estimate from inside the spectrum of what was solved.
    if "suffice" in solution.reason:
        s = problem(case, 4, "weight").singular_values
    assert solution.condition is not None or solution.rank is None
    if solution.condition is not None:
        assert 1 <= solution.condition <= 1.5 * float(s[0] / s[-1])  # rounded to one digit
        assert solution.singular_values is not None
        largest, smallest = solution.singular_values
        assert largest <= 1.4 * float(s[0])
        assert smallest >= float(s[-1]) / 1.4


@SUITE
@given(case=cases(), seed=SEEDS, which=st.sampled_from(["gradient", "weight", "both"]))
def test_matrix_free_claims_full_rank_only_where_it_is_full(
    case: Case, seed: int, which: str
) -> None:
    found = problem(case, seed, which)
    assume(found.rank_is_clear)
    check_full_rank_claim(found, MatrixFree().solve(found.system))


@SUITE
@given(
    case=cases(),
    seed=SEEDS,
    which=st.sampled_from(["weight", "both"]),
    known=KNOWN,
    factor=st.sampled_from([BorderedBand, BorderedPhases, DenseFactor]),
)
def test_a_float32_factor_claims_full_rank_only_where_it_is_full(
    case: Case, seed: int, which: str, known: float, factor: Any
) -> None:
    found = problem(case, seed, which, known)
    assume(found.rank_is_clear and found.system.has_weight)
    assume(factor is not BorderedPhases or which == "both")
    solution = factor().solve(found.system)
    if solution is not None:
        check_full_rank_claim(found, solution)
        check_singular_values(found, solution)
        assert solution.singular_values is not None
        largest, smallest = solution.singular_values
        assert solution.condition == pytest.approx(largest / smallest)


@pytest.mark.parametrize("factor", [BorderedBand, BorderedPhases, DenseFactor])
def test_a_float32_factor_of_zeros_claims_nothing(factor: Any) -> None:
    system = problem(layer((5, 5), 3, padding=1, group_filters=4), 0).system
    zero = {name: torch.zeros_like(getattr(system, name)) for name in ("w", "dw", "G", "o")}
    assert factor().solve(replace(system, **zero)) is None


def test_a_matrix_that_float32_makes_indefinite_is_left_to_other_solvers(monkeypatch: Any) -> None:
    monkeypatch.setattr("leakaudit.solvers.bordered.SHIFT", -1.0)
    found = problem(layer((30, 30), 3, padding=1, group_filters=2), 0)
    assert choose(found.case.geometry).solver is BorderedBand
    assert BorderedBand().solve(found.system) is None
    solution = solve_layer(found.system)
    assert "left the rank open" in solution.reason
    assert (solution.x - found.x).abs().max() < 1e-8


@pytest.mark.parametrize("missing", [0, 20, 58, 67, 106, 128, 9999])
def test_one_open_direction_among_ten_thousand_is_noticed(missing: int) -> None:
    # One output of a pointwise layer of two channels and two filters is not known: one equation for
    # two unknowns, rank 9999 of 10000. Some of these are where the random point is small.
    case = layer((50, 100), 1, group_channels=2, group_filters=2)
    x, w, _ = case.draw(0)
    mask = torch.ones(1, 2, 50, 100, dtype=torch.float64)
    mask.view(-1)[missing] = 0
    system = LayerSystem(
        case.convolution, case.geometry, w, None, None, case.output(x, w) * mask, mask, EPS
    )
    assert MatrixFree().solve(system).rank is None
    whole = replace(system, o=case.output(x, w), mask=torch.ones_like(mask))
    assert MatrixFree().solve(whole).rank == 10_000


def test_matrix_free_certifies_a_well_conditioned_layer() -> None:
    found = problem(layer((6, 6), 3, padding=1, group_filters=5), 4)
    assert MatrixFree().solve(found.system).rank == 36


def test_matrix_free_on_contradicting_equations_ends_at_least_squares() -> None:
    found = problem(layer((5, 4), 3, padding=1, group_filters=6), 0, noise=0.1)
    solution = solve_layer(found.system, memory=1)
    assert (solution.x.reshape(-1) - found.minimum_norm).norm() < 1e-7
    left = found.S @ found.minimum_norm - found.rhs
    assert solution.residual == pytest.approx(float(left.norm() / found.rhs.norm()), rel=1e-6)
