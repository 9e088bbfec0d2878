"""Every solver against LAPACK on the dense stack that differentiation gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dense_reference import Case, cases, layer
from hypothesis import assume, example, given, settings, strategies as st
from solver_problems import EPS, GAP, SEEDS, SUITE, Problem, check, check_singular_values, problem

from leakaudit.solvers.conjugate_gradients import least_squares
from leakaudit.solvers.dense import factorise, rank_tolerance
from leakaudit.solvers.gradient_only import GradientOnly
from leakaudit.solvers.normal_operator import NormalOperator
from leakaudit.solvers.solve import solve_layer
from leakaudit.solvers.stacked import Stacked


@SUITE
@given(case=cases(), seed=SEEDS)
@example(case=layer((5, 5), 3, stride=2, padding=1, group_filters=8), seed=0)
@example(case=layer((4, 4), 2, stride=2, group_filters=4, group_channels=2), seed=1)
@example(case=layer((3, 3, 2), 2, padding=1, group_filters=12, batch=2), seed=1)
@example(case=layer((7,), 2, stride=3, group_filters=3, groups=2, batch=2), seed=1)
def test_gradient_constraints_alone(case: Case, seed: int) -> None:
    found = problem(case, seed, "gradient")
    assume(found.rank_is_clear)
    check(found, GradientOnly().solve(found.system))


@SUITE
@given(
    case=cases(),
    seed=SEEDS,
    which=st.sampled_from(["weight", "both", "both"]),
    known=st.sampled_from([1.0, 0.6]),
)
@example(case=layer((6, 6), 3, padding=1, group_filters=4), seed=0, which="both", known=1.0)
@example(case=layer((6, 6), 3, padding=1, group_filters=1), seed=0, which="both", known=0.4)
@example(case=layer((7, 4), 2, stride=3, group_filters=5), seed=0, which="both", known=1.0)
@example(case=layer((3, 3, 3), 2, group_filters=4), seed=0, which="both", known=1.0)
@example(case=layer((9,), 3, groups=2, group_filters=2, batch=2), seed=0, which="both", known=0.6)
def test_stacked_equations(case: Case, seed: int, which: str, known: float) -> None:
    found = problem(case, seed, which, known)
    assume(found.rank_is_clear)
    check(found, Stacked().solve(found.system))


NOISY = [
    layer((5, 4), 3, padding=1, group_filters=6, group_channels=2),
    layer((6,), 3, padding=2, group_filters=5, groups=2, batch=2),
    layer((3, 3, 3), 2, padding=1, group_filters=9),
]


@pytest.mark.parametrize("case", NOISY, ids=["2d", "1d groups batch", "3d"])
def test_contradicting_equations_give_the_least_squares_solution(case: Case) -> None:
    found = problem(case, 0, "gradient", noise=0.1)
    solution = GradientOnly().solve(found.system)
    check(found, solution)
    both = problem(case, 0, "both", noise=0.1)
    check(both, Stacked().solve(both.system))
    assert solution.residual > 1e-3


def phase_conditions(found: Problem) -> float:
    """The worst condition number of the independent systems: per example channel and phase."""
    case = found.case
    channel = torch.arange(case.input_shape[1]).repeat_interleave(torch.tensor(case.sizes).prod())
    channel = channel.repeat(case.batch)
    grid = torch.cartesian_prod(*(torch.arange(s) for s in case.sizes)).reshape(-1, len(case.sizes))
    phase = (grid + torch.tensor(case.begin)) % torch.tensor(case.stride)
    key = torch.zeros(len(phase), dtype=torch.int64)
    for axis, stride in enumerate(case.stride):
        key = key * stride + phase[:, axis]
    key = key.repeat(case.batch * case.input_shape[1]) * 1000 + channel
    worst = 1.0
    for value in key.unique():
        s = torch.linalg.svdvals(found.S[:, key == value])
        s = s[s > 1e-10 * s[0]]
        worst = max(worst, float(s[0] / s[-1]) if len(s) else 1.0)
    return worst


@settings(max_examples=30, deadline=None, derandomize=True)
@given(case=cases(), seed=SEEDS)
def test_gradient_only_states_the_worst_condition_of_its_systems(case: Case, seed: int) -> None:
    found = problem(case, seed, "gradient")
    assume(found.rhs.norm() > 0)
    solution = GradientOnly().solve(found.system)
    assert solution.condition is not None
    expected = phase_conditions(found)
    assume(expected < 1e9)
    assert expected / 1.5 <= solution.condition <= expected * 1.5
    check_singular_values(found, solution)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=cases(), seed=SEEDS)
def test_stacked_states_the_condition_of_the_scaled_stack(case: Case, seed: int) -> None:
    found = problem(case, seed)
    assume(found.rank_is_clear)
    s = found.singular_values
    kept = s[s > GAP * s[0]]
    solution = Stacked().solve(found.system)
    expected = float(s[0] / kept[-1])
    assert solution.condition is not None
    assert expected / 1.5 <= solution.condition <= expected * 1.5
    check_singular_values(found, solution)


class TestStackedBranches:
    """A regular normal matrix goes through Cholesky, a singular one through its eigenvalues."""

    def test_full_rank(self) -> None:
        found = problem(layer((6, 6), 3, padding=1, group_filters=4), 0)
        solution = Stacked().solve(found.system)
        assert solution.solver == Stacked.NAME
        assert solution.reason == ""
        assert (solution.x - found.x).abs().max() < 1e-12

    def test_unread_pixels_alone_do_not_make_it_singular(self) -> None:
        case = layer((7, 7), 2, stride=3, group_filters=4)  # rows and columns 2, 5 are unread
        found = problem(case, 0)
        solution = Stacked().solve(found.system)
        assert solution.solver == Stacked.NAME
        assert solution.rank == 16
        assert solution.unknowns == 49
        read = torch.zeros(7, dtype=torch.bool)
        read[[0, 1, 3, 4]] = True
        where = read[:, None] & read[None, :]
        assert (solution.x - found.x)[0, 0][where].abs().max() < 1e-12
        assert (solution.x[0, 0][~where] == 0).all()

    def test_rank_deficient(self) -> None:
        found = problem(layer((6, 6), 3, group_channels=3, group_filters=1), 0)
        solution = Stacked().solve(found.system)
        assert solution.solver == Stacked.NAME_SINGULAR
        assert solution.rank == int((found.singular_values > 1e-9).sum()) < 108
        pinv = torch.linalg.pinv(found.S, rcond=1e-9) @ found.rhs
        assert (solution.x.reshape(-1) - pinv).abs().max() < 1e-10
        # Minimum norm: nothing of the null space, so shorter than the truth.
        assert solution.x.norm() < found.x.norm()

    def test_singular_values_lost_in_the_gradients_rounding_do_not_count(self) -> None:
        # Two filters parallel but for 1e-4: half of the singular values are 2e-5 of the rest.
        case = layer((3, 3), 1, group_channels=2, group_filters=2)
        found = problem(case, 0, "weight")
        w = torch.tensor([[1.0, 1.0], [1.0, 1.0001]], dtype=torch.float64).reshape(2, 2, 1, 1)
        system = replace(found.system, w=w, o=case.output(found.x, w))
        assert Stacked().solve(system).rank == 18
        assert Stacked().solve(replace(system, precision=1e-3)).rank == 9


def test_the_three_solvers_agree_where_all_of_them_apply() -> None:
    case = layer((5, 5), 3, stride=2, padding=1, group_filters=9)
    found = problem(case, 2)
    alone = problem(case, 2, "gradient")
    results = [
        GradientOnly().solve(alone.system),
        Stacked().solve(found.system),
        solve_layer(found.system, memory=1),
    ]
    for result in results:
        assert (result.x - found.x).abs().max() < 1e-9
    assert [result.rank for result in results] == [25, 25, 25]


@pytest.mark.parametrize("which", ["gradient", "weight", "both"])
@pytest.mark.parametrize("memory", [1, 2 << 30], ids=["matrix-free", "dense"])
def test_two_runs_are_identical_to_the_last_bit(which: str, memory: int) -> None:
    found = problem(layer((6, 5), 3, padding=1, group_filters=4, group_channels=2), 7, which)
    first, second = (solve_layer(found.system, memory) for _ in range(2))
    assert torch.equal(first.x, second.x)
    assert replace(first, x=second.x) == second


def test_a_layer_without_any_equation_is_refused() -> None:
    found = problem(layer((4,), 2), 0)
    empty = replace(found.system, dw=None, G=None, o=None, mask=None)
    with pytest.raises(ValueError, match="no equations"):
        solve_layer(empty)
    with pytest.raises(ValueError, match="need dl/dw"):
        GradientOnly().solve(empty)


@pytest.mark.parametrize("memory", [1, 2 << 30], ids=["matrix-free", "dense"])
@pytest.mark.parametrize("which", ["gradient", "both"])
def test_a_gradient_of_zeros_is_solved_by_zeros_and_has_no_rank_of_its_own(
    memory: int, which: str
) -> None:
    found = problem(layer((4, 4), 3, padding=1, group_filters=9), 0, which, known=0.0)
    zero = replace(
        found.system, G=torch.zeros_like(found.system.G), dw=torch.zeros_like(found.system.dw)
    )
    solution = solve_layer(zero, memory)
    assert torch.equal(solution.x, torch.zeros_like(solution.x))
    assert solution.rank in (0, None)
    assert not (solution.rank is not None and solution.full_rank)


def test_a_dead_filter_neither_hurts_nor_helps() -> None:
    case = layer((4, 4), 3, padding=1, group_filters=9)
    found = problem(case, 0, "gradient")
    G = found.system.G.clone()
    G[:, 3] = 0
    dead = replace(found.system, G=G, dw=case.weight_gradient(found.x, G))
    rank = torch.linalg.matrix_rank(case.gradient_matrix(G))
    solution = GradientOnly().solve(dead)
    assert solution.rank == rank == 16
    assert (solution.x - found.x).abs().max() < 1e-10


@pytest.mark.parametrize("shape", [(12, 4), (4, 12), (7, 7), (3, 1), (1, 3)])
def test_factorisation_is_the_pseudo_inverse(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    T = torch.randn(shape, generator=generator, dtype=torch.float64)
    T[:, 0] = 0 if shape[1] > 3 else T[:, 0]
    rhs = torch.randn(shape[0], 3, generator=generator, dtype=torch.float64)
    factor = factorise(T, EPS)
    assert factor.rank == torch.linalg.matrix_rank(T)
    torch.testing.assert_close(factor.solve(rhs), torch.linalg.pinv(T, rtol=1e-12) @ rhs)
    s = torch.linalg.svdvals(T)[: factor.rank]
    assert factor.condition == pytest.approx(float(s[0] / s[-1]))


def test_rank_of_a_factorisation_follows_the_precision_of_the_gradients() -> None:
    T = torch.diag(torch.tensor([1.0, 1e-3, 1e-9], dtype=torch.float64))
    ranks = [factorise(T, torch.finfo(d).eps).rank for d in (torch.float64, torch.float32)]
    assert ranks == [3, 2]
    assert factorise(T, torch.finfo(torch.bfloat16).eps).rank == 1
    assert factorise(torch.zeros(3, 2, dtype=torch.float64), EPS).rank == 0


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(60, 40), (144, 64)])
def test_rounding_the_gradients_neither_hides_nor_adds_rank(
    dtype: str, shape: tuple[int, int]
) -> None:
    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)
    rows, columns = shape
    left = torch.randn(rows, columns // 2, generator=generator, dtype=torch.float64)
    right = torch.randn(columns // 2, columns, generator=generator, dtype=torch.float64)
    deficient = left @ torch.linalg.qr(right.T).Q.T
    rounded = deficient.to(kind).double()
    precision = torch.finfo(kind).eps
    assert rank_tolerance(rows, columns, precision) < 0.2
    rank = factorise(rounded, precision).rank
    assert 0.9 * (columns // 2) <= rank <= columns // 2


def test_conjugate_gradients_stop_at_their_limit_and_report_what_is_left() -> None:
    found = problem(layer((8, 8), 3, padding=1, group_filters=3), 0)
    operator = NormalOperator(found.system)
    end = least_squares(operator, limit=3)
    assert end.iterations == 3
    assert not end.converged
    left = found.S @ end.x.reshape(-1) - found.rhs
    assert end.residual == pytest.approx(float(left.norm() / found.rhs.norm()), rel=1e-9)
    assert 1e-6 < end.residual < 1
    whole = least_squares(operator)
    assert whole.converged
    largest, smallest = whole.spectrum.extremes()
    s = found.singular_values
    assert 0.9 * float(s[0]) <= largest <= float(s[0]) * (1 + 1e-6)
    assert float(s[-1]) * (1 - 1e-6) <= smallest <= 2 * float(s[-1])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("which", ["gradient", "both"])
@pytest.mark.parametrize("memory", [1, 2 << 30], ids=["matrix-free", "dense"])
def test_cuda_finds_what_the_cpu_finds(which: str, memory: int) -> None:
    found = problem(layer((6, 5), 3, padding=1, group_filters=9, group_channels=2), 7, which)
    moved = replace(
        found.system,
        **{
            name: None if (t := getattr(found.system, name)) is None else t.cuda()
            for name in ("w", "dw", "G", "o", "mask")
        },
    )
    here, there = solve_layer(found.system, memory), solve_layer(moved, memory)
    assert there.x.is_cuda
    assert there.rank == here.rank
    torch.testing.assert_close(there.x.cpu(), here.x, rtol=1e-7, atol=1e-7)
