"""Whatever the leak path claims of a random network, its replay finds, and the truth confirms."""

from __future__ import annotations

from collections import Counter

import pytest

torch = pytest.importorskip("torch")

from claims import check_claims, graph_of
from hypothesis import HealthCheck, given, settings, strategies as st
from random_networks import networks

from leakaudit.facts.fact import Kind, Quality


def check_many(examples: int) -> tuple[Counter[tuple[Kind, Quality]], Counter[str], int]:
    """Draw so many networks and check every claim about each.

    Returns:
        Facts compared by kind and quality, derivations replayed, and how often the input came back.
    """
    compared: Counter[tuple[Kind, Quality]] = Counter()
    steps: Counter[str] = Counter()
    reached = 0

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(networks(), st.sampled_from(["cross-entropy", "cross-entropy", "mse"]))
    def claims_hold(drawn, loss):
        nonlocal reached
        module, shape, seed = drawn
        done = check_claims(graph_of(module, shape), seed, loss)
        compared.update(done.compared)
        steps.update(done.steps)
        reached += done.reached

    claims_hold()
    return compared, steps, reached


def test_claims_hold_numerically() -> None:
    compared, steps, reached = check_many(30)
    assert compared[Kind.VALUE, Quality.EXACT] >= 60
    assert compared[Kind.GRADIENT, Quality.EXACT] >= 60
    assert reached >= 5
    assert len(steps) >= 12


@pytest.mark.slow
def test_claims_hold_numerically_for_many_more() -> None:
    compared, steps, reached = check_many(400)
    assert reached >= 60
    assert all(compared[Kind.VALUE, quality] for quality in Quality)
    assert {
        "activation-gradient",
        "activation-inverse",
        "activation-positive-inverse",
        "added-parameter-gradient",
        "affine-gradient",
        "batch-norm-inverse",
        "branch-value",
        "convolution-input-gradient",
        "convolution-value",
        "dense-value-from-bias",
        "dense-value-from-gradient",
        "dense-value-from-loss",
        "dense-value-from-output",
        "dense-value-up-to-scale",
        "forward",
        "moved-gradient",
        "moved-value",
        "normalised-value",
        "sum-over-uses",
    } <= steps.keys()
