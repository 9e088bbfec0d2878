"""What comes back from float32 gradients of networks that were held to be walls.

They normalise by the example's own statistics, or their activations are not monotone.
"""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

from case_audits import audit_case
from cases_networks import gelu_wide, layer_norm_full
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


def test_the_positive_outputs_of_a_gelu_are_equations_enough() -> None:
    case = audit_case(*gelu_wide())
    assert case.claimed.reaches_input
    assert case.found.status is Status.CONFIRMED
    assert (case.found.rank, case.found.unknowns) == (3072, 3072)
    assert decibel(case.found) >= 120
