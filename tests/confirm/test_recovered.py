"""What was recovered against the truth: each kind with its own judge."""

from __future__ import annotations

import pytest
import torch

from leakaudit.confirm.recovered import (
    Judgement,
    RecoveredTensor,
    RecoveredUpToFactor,
    fit_factor,
)
from leakaudit.findings import Confirmation, Scope, Status

GENERATOR = torch.Generator().manual_seed(0)
TRUTH = torch.rand((1, 20), generator=GENERATOR, dtype=torch.float64)
OTHER = torch.rand((1, 20), generator=GENERATOR, dtype=torch.float64)


def judged(got: torch.Tensor, truth: torch.Tensor, scaled: bool) -> Judgement:
    return (RecoveredUpToFactor(got) if scaled else RecoveredTensor(got)).judge(truth)


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


@pytest.mark.parametrize("scaled", [False, True])
def test_a_mask_with_holes_never_counts_as_confirmed(scaled: bool) -> None:
    mask = torch.ones_like(TRUTH, dtype=torch.bool)
    mask[0, :3] = False
    kind = RecoveredUpToFactor(TRUTH, mask) if scaled else RecoveredTensor(TRUTH, None, mask)
    found = kind.judge(TRUTH)
    assert found.status is Status.NOT_REPRODUCED
    assert found.reason.startswith("3 of 20 values cannot be recovered")


@pytest.mark.parametrize("shape", [(1, 20), (1, 3, 7, 9), (1, 2, 9, 9)])
def test_only_a_picture_has_psnr_and_ssim_and_can_be_shown(shape: tuple[int, ...]) -> None:
    truth = torch.rand(shape, generator=GENERATOR, dtype=torch.float64)
    found = RecoveredTensor(truth).judge(truth)
    assert (found.mse, found.psnr, found.ssim, found.picture) == (0, None, None, None)


def test_a_picture_up_to_one_factor_is_shown_as_it_is_judged() -> None:
    truth = torch.rand((1, 3, 9, 9), generator=GENERATOR, dtype=torch.float64)
    found = RecoveredUpToFactor(truth / -7).judge(truth)
    assert found.picture is not None
    assert torch.allclose(found.picture, truth[0])
    assert found.ssim == pytest.approx(1)


def test_a_confirmation_holds_the_judgement_and_what_is_common_to_the_run() -> None:
    base = Confirmation(Status.NOT_RUN, Scope.NONE, "", device="cpu", seed=3, attempts=("first",))
    found = RecoveredTensor(OTHER).judge(TRUTH).confirmation(base, Scope.LOCAL)
    assert (found.device, found.seed, found.attempts) == ("cpu", 3, ("first",))
    assert (found.status, found.scope) == (Status.NOT_REPRODUCED, Scope.LOCAL)
    assert found.unknowns == 20
    assert found.solver == "division by the bias gradient"
