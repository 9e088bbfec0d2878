"""The predicted error against the true one, over random layers and every type of gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
from places import SAMPLES

torch = pytest.importorskip("torch")

from dense_reference import Case, cases
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from leakaudit.confirm.client import GRADIENT_DTYPES
from leakaudit.confirm.confirm import ConfirmOptions
from leakaudit.confirm.recovered import RecoveredTensor, predicted_error
from leakaudit.equations.system import LayerSystem
from leakaudit.findings import Confirmation, Scope, Status
from leakaudit.pipeline.audit import AuditOptions, audit
from leakaudit.report.wording import spectrum
from leakaudit.rules.registry import load_rules
from leakaudit.solvers.interface import Solution
from leakaudit.solvers.solve import solve_layer

# Most random layers do not fix their input; those that do are still some dozens.
SUITE = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much],
)


def solved(case: Case, seed: int, dtype: torch.dtype, *, outputs: bool) -> tuple[float, Solution]:
    """The true relative error of a layer solved from rounded gradients, and the solution."""
    x, w, G = case.draw(seed)
    o = case.output(x, w)
    # What an attacker has of dl/do is as coarse as the gradients it comes from.
    system = LayerSystem(
        case.convolution,
        case.geometry,
        w,
        case.weight_gradient(x, G).to(dtype).double(),
        G.to(dtype).double(),
        o.to(dtype).double() if outputs else None,
        torch.ones_like(o) if outputs else None,
        torch.finfo(dtype).eps,
    )
    solution = solve_layer(system)
    return float((solution.x - x).norm() / x.norm()), solution


@pytest.mark.parametrize("outputs", [True, False], ids=["both", "gradients"])
@pytest.mark.parametrize("name", GRADIENT_DTYPES)
@SUITE
@given(case=cases(), seed=st.integers(0, 1000))
def test_the_error_stays_within_three_times_what_is_predicted(
    name: str, outputs: bool, case: Case, seed: int
) -> None:
    dtype = GRADIENT_DTYPES[name]
    error, solution = solved(case, seed, dtype, outputs=outputs)
    assume(solution.rank == solution.unknowns)
    predicted = predicted_error(solution, torch.finfo(dtype).eps)
    assert predicted is not None
    assert error <= 3 * predicted + 1e-14


def test_coarser_gradients_let_expect_larger_errors() -> None:
    case = Case((6, 6), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1, 2, 4)
    predictions = []
    for name in ("float64", "float32", "float16", "bfloat16"):
        dtype = GRADIENT_DTYPES[name]
        _, solution = solved(case, 0, dtype, outputs=True)
        predictions.append(predicted_error(solution, torch.finfo(dtype).eps))
    assert None not in predictions
    assert predictions == sorted(predictions)  # type: ignore[type-var]


def test_nothing_is_predicted_where_unknowns_stay_open() -> None:
    x = torch.ones((1, 1, 2, 2), dtype=torch.float64)
    full = Solution(x, "s", "r", 4, 4, 10.0, 1e-9)
    assert predicted_error(full, 1e-7) == pytest.approx(1e-6)
    assert predicted_error(replace(full, residual=1e-3), 1e-7) == pytest.approx(1e-2)
    assert predicted_error(replace(full, rank=3), 1e-7) is None
    assert predicted_error(replace(full, rank=None), 1e-7) is None
    assert predicted_error(replace(full, condition=None), 1e-7) is None
    assert predicted_error(replace(full, condition=float("inf")), 1e-7) is None


def test_the_evidence_carries_it_and_readers_see_it() -> None:
    x = torch.ones((1, 1, 2, 2), dtype=torch.float64)
    solution = Solution(x, "s", "r", 4, 4, 10.0, 1e-9)
    base = Confirmation(Status.NOT_RUN, Scope.NONE, "", gradient_dtype="float32")
    judged = RecoveredTensor(x, solution).judge(x).confirmation(base, Scope.LOCAL)
    assert judged.predicted_error == pytest.approx(10 * torch.finfo(torch.float32).eps)
    assert spectrum(judged).endswith(": 1.2e-6")
    assert RecoveredTensor(x).judge(x).confirmation(base, Scope.LOCAL).predicted_error is None
    assert spectrum(base) == ""


def test_an_audit_predicts_its_own_errors() -> None:
    report = audit(
        str(SAMPLES / "lenet_main.onnx"),
        AuditOptions(rules=load_rules(), confirm=ConfirmOptions()),
    )
    told = [f.confirmation for f in report.findings if f.confirmation is not None]
    predicted = [c for c in told if c.predicted_error is not None]
    assert len(predicted) >= 4
    for evidence in predicted:
        assert evidence.predicted_error is not None
        assert evidence.mse is not None
        assert evidence.predicted_error < 0.1
        if evidence.psnr is not None:  # a picture, of a mean square between 0.05 and 1
            assert evidence.mse <= (3 * evidence.predicted_error) ** 2
