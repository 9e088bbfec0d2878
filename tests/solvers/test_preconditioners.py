"""The normal operator and its approximate inverses against dense matrices from differentiation."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from dense_reference import Case, cases, layer
from hypothesis import assume, given, settings, strategies as st
from solver_problems import KNOWN, SEEDS, Problem, problem

from leakaudit.solvers.band import BorderedBand
from leakaudit.solvers.bordered import SHIFT
from leakaudit.solvers.circulant import ScaledCirculant
from leakaudit.solvers.dense_factor import DenseFactor, cholesky_in_place
from leakaudit.solvers.normal_operator import NormalOperator
from leakaudit.solvers.phase_blocks import BorderedPhases

SUITE = settings(max_examples=60, deadline=None, derandomize=True)
WHICH = st.sampled_from(["gradient", "weight", "both"])
SHAPES = [
    layer((9, 7), 3, padding=1, group_filters=6, group_channels=2),
    layer((8, 6), 3, stride=2, padding=1, groups=2, group_filters=5, batch=2),
    layer((14,), 5, padding=2, group_filters=3, group_channels=2),
    layer((4, 5, 3), 2, padding=1, group_filters=6),
]


def dense(apply: Any, found: Problem) -> Any:
    """The matrix of a linear map that takes a stack of the layer's inputs."""
    unit = torch.eye(found.case.unknowns, dtype=torch.float64)
    return apply(unit.reshape(-1, *found.case.input_shape)).flatten(1).T


def inverse(kind: Any, system: Any, operator: Any) -> Any:
    """What preconditions an iteration: the circulant, or a solver's factor."""
    if kind is ScaledCirculant:
        return ScaledCirculant(system, operator)
    return kind().factor(system, operator)


def one_by_one(apply: Any) -> Any:
    return lambda stack: torch.stack([apply(vector) for vector in stack])


@SUITE
@given(case=cases(), seed=SEEDS, which=WHICH, known=KNOWN)
def test_the_normal_operator_is_that_of_the_dense_stack(
    case: Case, seed: int, which: str, known: float
) -> None:
    found = problem(case, seed, which, known, noise=0.1)
    operator = NormalOperator(found.system)
    H = found.S.T @ found.S
    torch.testing.assert_close(dense(one_by_one(operator.apply), found), H, rtol=1e-11, atol=1e-11)
    diagonal = operator.diagonal.reshape(-1)
    torch.testing.assert_close(diagonal, H.diagonal(), rtol=1e-11, atol=1e-11)
    x = torch.linspace(-1, 1, case.unknowns, dtype=torch.float64)
    misfit = operator.misfit(x.reshape(case.input_shape))
    left = found.rhs - found.S @ x
    torch.testing.assert_close(misfit.gradient.reshape(-1), found.S.T @ left, rtol=1e-9, atol=1e-9)
    assert misfit.residual == pytest.approx(float(left.norm()), rel=1e-9, abs=1e-12)
    assert misfit.rhs == pytest.approx(float(found.rhs.norm()), rel=1e-9, abs=1e-12)


@SUITE
@given(
    case=cases(),
    seed=SEEDS,
    which=st.sampled_from(["weight", "both"]),
    known=KNOWN,
    kind=st.sampled_from([ScaledCirculant, BorderedBand, BorderedPhases, DenseFactor]),
)
def test_preconditioners_are_symmetric_and_semidefinite(
    case: Case, seed: int, which: str, known: float, kind: Any
) -> None:
    found = problem(case, seed, which, known)
    operator = NormalOperator(found.system)
    assume(float(operator.diagonal.max()) > 0)
    assume(kind is not BorderedPhases or which == "both")
    P = dense(inverse(kind, found.system, operator), found)
    size = float(P.abs().max())
    # What the base leaves open is the shift's there, and the border's then cancels 1 / SHIFT.
    rounding = torch.finfo(torch.float32).eps / SHIFT  # 1e-2
    torch.testing.assert_close(P, P.T, rtol=0, atol=rounding * size)
    assert float(torch.linalg.eigvalsh((P + P.T) / 2)[0]) >= -rounding * size


@pytest.mark.parametrize("kind", [BorderedBand, BorderedPhases, DenseFactor])
@pytest.mark.parametrize("known", [1.0, 0.8])
@pytest.mark.parametrize("which", ["weight", "both"])
@pytest.mark.parametrize("case", SHAPES, ids=["2d", "groups and batch", "1d", "3d"])
def test_a_factor_inverts_the_normal_matrix(
    case: Case, which: str, known: float, kind: Any
) -> None:
    if kind is BorderedPhases and which == "weight":
        which = "gradient"  # its base
    found = problem(case, 3, which, known)
    s = found.singular_values
    # Directions that the equations leave open are the shift's.
    clear = len(s) == case.unknowns and float(s[-1]) > 0.05 * float(s[0])
    P = dense(kind().factor(found.system, NormalOperator(found.system)), found)
    product = P @ (found.S.T @ found.S)
    values = torch.linalg.eigvals(product).real
    assert float(values.max()) < 1 + 1e-2
    if clear:
        torch.testing.assert_close(product, torch.eye(case.unknowns).double(), rtol=0, atol=2e-2)


def test_most_factor_cases_are_well_conditioned() -> None:
    """The test above compares with the identity, not just with a bound."""
    clear = 0
    for case in SHAPES:
        s = problem(case, 3, "both").singular_values
        clear += len(s) == case.unknowns and float(s[-1]) > 0.05 * float(s[0])
    assert clear >= 3


def test_the_circulant_is_exact_where_the_layer_has_no_border() -> None:
    found = problem(layer((6, 5), 1, group_filters=6, group_channels=3), 5, "weight")
    P = dense(ScaledCirculant(found.system, NormalOperator(found.system)), found)
    product = P @ (found.S.T @ found.S)
    torch.testing.assert_close(product, torch.eye(90).double(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_circulant_gathers_the_eigenvalues(stride: int) -> None:
    filters = 4 * stride**2  # twice as many outputs as unknowns
    case = layer((20, 20), 5, stride=stride, padding=2, group_filters=filters, group_channels=2)
    found = problem(case, 1, "weight")
    H = found.S.T @ found.S
    P = dense(ScaledCirculant(found.system, NormalOperator(found.system)), found)
    before = torch.linalg.eigvalsh(H)
    after = torch.linalg.eigvals(P @ H).real.sort().values
    middle = slice(len(after) // 10, -len(after) // 10)
    spread = float(after[middle][-1] / after[middle][0])
    assert spread < 0.5 * float(before[middle][-1] / before[middle][0])


@pytest.mark.parametrize("size", [5, 256, 600])
def test_cholesky_in_place(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    X = torch.randn(size, 2 * size, generator=generator, dtype=torch.float64)
    H = X @ X.T / size
    torch.testing.assert_close(cholesky_in_place(H.clone()), torch.linalg.cholesky(H))
