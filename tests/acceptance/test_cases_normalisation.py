"""What comes back of networks that normalise by the example's own statistics, from float32."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

from case_audits import audit_case
from cases_networks import layer_norm_full
from torch import nn

from leakaudit.findings import Confirmation, Status


def decibel(found: Confirmation) -> float:
    """How far the mean squared error lies below 1."""
    assert found.mse is not None
    return -10 * math.log10(found.mse)


def test_a_scale_and_a_bias_for_every_output_give_it_whatever_stands_above() -> None:
    case = audit_case(*layer_norm_full(nn.GELU))
    assert case.found.status is Status.CONFIRMED
    assert decibel(case.found) >= 120


def test_a_relu_above_hides_what_it_switches_off_and_the_rest_is_counted() -> None:
    case = audit_case(*layer_norm_full(nn.ReLU))
    assert case.found.status is Status.NOT_REPRODUCED
    assert "2015 of 4096 outputs are seen" in case.found.attempts[0]
