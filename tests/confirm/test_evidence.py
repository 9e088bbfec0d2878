"""A reconstruction against the truth: what counts as one, exactly and up to one factor."""

from __future__ import annotations

import pytest
import torch

from leakaudit.confirm.judge import fit_factor, judge
from leakaudit.findings import Confirmation, Scope, Status

BASE = Confirmation(Status.NOT_RUN, Scope.NONE, "")
GENERATOR = torch.Generator().manual_seed(0)
TRUTH = torch.rand((1, 20), generator=GENERATOR, dtype=torch.float64)
OTHER = torch.rand((1, 20), generator=GENERATOR, dtype=torch.float64)


def judged(got: torch.Tensor, truth: torch.Tensor, scaled: bool) -> Confirmation:
    return judge(BASE, Scope.END_TO_END, got, truth, None, scaled=scaled)


@pytest.mark.parametrize("factor", [-2.5, 1e-6, 40.0])
def test_a_factor_is_fitted_only_where_it_is_unknown(factor: float) -> None:
    assert judged(TRUTH / factor, TRUTH, scaled=True).status is Status.CONFIRMED
    assert judged(TRUTH / factor, TRUTH, scaled=False).status is Status.NOT_REPRODUCED
    assert f"{factor:.3g}" in judged(TRUTH / factor, TRUTH, scaled=True).reason
    assert fit_factor(TRUTH / factor, TRUTH) == pytest.approx(factor)


def test_another_direction_stays_wrong_with_every_factor() -> None:
    evidence = judged(OTHER, TRUTH, scaled=True)
    assert evidence.status is Status.NOT_REPRODUCED
    assert "up to one factor" in evidence.reason
    assert evidence.mse is not None
    # The share of the truth outside of the direction found, by its angle.
    cosine = torch.nn.functional.cosine_similarity(OTHER, TRUTH).item()
    assert evidence.mse == pytest.approx(float(TRUTH.square().mean()) * (1 - cosine**2))


def test_nothing_found_is_no_factor() -> None:
    zero = torch.zeros_like(TRUTH)
    assert fit_factor(zero, TRUTH) == 0
    assert judged(zero, TRUTH, scaled=True).status is Status.NOT_REPRODUCED


def test_one_number_up_to_a_factor_confirms_nothing() -> None:
    one = torch.ones((1, 1), dtype=torch.float64)
    assert judged(one, 3 * one, scaled=True).status is Status.INCONCLUSIVE
