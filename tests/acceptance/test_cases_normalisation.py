"""What comes back from float32 gradients of networks that were held to be walls.

They normalise by the example's own statistics, or their activations are not monotone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

pytest.importorskip("torch")

from case_audits import audit_case
from cases_networks import gelu_wide, layer_norm_full, normalised
from torch import nn

from leakaudit.findings import Confirmation, Status


def decibel(found: Confirmation) -> float:
    """How far the mean squared error lies below 1."""
    assert found.mse is not None
    return -10 * math.log10(found.mse)


@pytest.mark.parametrize(
    "norm",
    [lambda: nn.GroupNorm(4, 16), lambda: nn.GroupNorm(1, 16), lambda: nn.BatchNorm2d(16)],
    ids=["group_norm", "layer_norm", "batch_norm in training mode"],
)
def test_without_a_bias_the_picture_comes_back_up_to_one_factor(
    norm: Callable[[], nn.Module],
) -> None:
    case = audit_case(*normalised(norm))
    assert case.claimed.furthest == case.claimed.steps[-1].tensor
    assert case.claimed.furthest_size == 768
    assert "up to one unknown scale" in case.claimed.steps[-1].fact
    assert case.found.status is Status.CONFIRMED
    assert "up to one factor" in case.found.reason
    assert decibel(case.found) >= 120


@pytest.mark.parametrize("groups", [1, 4])
def test_with_a_bias_it_comes_back_outright(groups: int) -> None:
    case = audit_case(*normalised(lambda: nn.GroupNorm(groups, 16), bias=True))
    assert case.claimed.reaches_input
    assert case.found.status is Status.CONFIRMED
    assert "factor" not in case.found.reason
    assert decibel(case.found) >= 120


def test_a_scale_and_a_bias_for_every_output_give_the_input_whatever_stands_above() -> None:
    case = audit_case(*layer_norm_full(nn.GELU))
    assert case.claimed.reaches_input
    assert (case.found.status, case.found.rank) == (Status.CONFIRMED, 3072)
    assert decibel(case.found) >= 120


def test_a_relu_above_hides_what_it_switches_off_and_the_rest_is_counted() -> None:
    """Half of 64 outputs for each patch, of 48 unknowns."""
    case = audit_case(*layer_norm_full(nn.ReLU))
    assert case.found.status is Status.NOT_REPRODUCED
    assert "2015 of 4096 outputs are seen" in case.found.attempts[0]
    assert "2081 of its 4096 outputs are not known" in case.found.reason


def test_the_positive_outputs_of_a_gelu_are_equations_enough() -> None:
    case = audit_case(*gelu_wide())
    assert case.claimed.reaches_input
    assert case.found.status is Status.CONFIRMED
    assert (case.found.rank, case.found.unknowns) == (3072, 3072)
    assert decibel(case.found) >= 120
