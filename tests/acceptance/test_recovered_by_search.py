"""An input behind max poolings comes back by search, and no gate passes over it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

import leakaudit
from leakaudit.findings import Severity, Status


def convolutional(first: int, second: int, size: int, hidden: int) -> nn.Sequential:
    """Two convolutions with max pooling and two dense layers, as McMahan's FedAvg paper has it."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, first, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * (size // 4) ** 2, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )


@pytest.mark.parametrize(
    ("first", "second", "size", "hidden"),
    [
        pytest.param(32, 64, 12, 64, id="small"),
        pytest.param(32, 64, 28, 512, id="fedavg", marks=pytest.mark.slow),
    ],
)
def test_the_picture_comes_back_from_float32_gradients(
    first: int, second: int, size: int, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leakaudit.confirm.beyond.SEARCH_SECONDS", 600.0)
    model = convolutional(first, second, size, hidden)
    report = leakaudit.audit(model, input_shape=(1, 1, size, size), time_budget=600)
    (finding,) = (found for found in report.findings if found.rule == "LA012")
    assert finding.severity is Severity.CRITICAL
    confirmation = finding.confirmation
    assert confirmation is not None
    assert confirmation.status is Status.BY_SEARCH
    assert confirmation.mse is not None
    assert confirmation.mse < 1e-10  # 100 dB
    assert report.exit_code(fail_on="critical") == 1
    assert "recovered by search" in report.render("table")


def test_a_search_that_fails_changes_nothing() -> None:
    """A global average leaves 24 numbers for 144 unknowns: not tried, and still not followed."""
    model = nn.Sequential(
        nn.Conv2d(1, 24, 5, padding=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )
    report = leakaudit.audit(model, input_shape=(1, 1, 12, 12))
    (finding,) = (found for found in report.findings if found.rule == "LA012")
    assert finding.confirmation is None
    assert finding.severity is Severity.MEDIUM
