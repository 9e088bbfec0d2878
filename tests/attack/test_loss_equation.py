"""The losses against torch, and the scale of a bias-free head from the loss equation."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings, strategies as st

from leakaudit.attack.loss import solve_head
from leakaudit.confirm.client import loss_value, worst_case_target

SUITE = settings(max_examples=60, deadline=None, derandomize=True)


def observed(loss: str, W: Any, x: Any, target: Any, bias: Any = None) -> tuple[Any, Any]:
    """dl/dW and dl/dz by autograd, from torch's own losses."""
    W = W.clone().requires_grad_(True)
    z = (W @ x)[None]
    z = z if bias is None else z + bias
    z.retain_grad()
    if loss == "cross-entropy":
        value = torch.nn.CrossEntropyLoss()(z, torch.tensor([target]))
    else:
        value = torch.nn.BCEWithLogitsLoss()(z, torch.as_tensor(target).double().expand_as(z))
    value.backward()
    return W.grad, z.grad[0]


def normal(*shape: int, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def relative(a: Any, b: Any) -> float:
    return float((a - b).norm() / b.norm())


def consistent(solution: Any, loss: str, dW: Any, W: Any, bias: Any = None) -> bool:
    """Whether g·xᵀ = dW and g is the loss gradient at W·x for some label."""
    if relative(torch.outer(solution.g, solution.x), dW) > 1e-10:
        return False
    labels = range(len(W)) if loss == "cross-entropy" else (0.0, 1.0)
    differences = [
        relative(solution.g, observed(loss, W, solution.x, label, bias)[1]) for label in labels
    ]
    return min(differences) < 1e-6


@SUITE
@given(classes=st.integers(2, 10), size=st.integers(1, 12), seed=st.integers(0, 1000))
def test_cross_entropy_head_without_bias(classes: int, size: int, seed: int) -> None:
    W, x = 0.5 * normal(classes, size, seed=seed), normal(size, seed=seed + 1)
    for label in range(classes):
        dW, g = observed("cross-entropy", W, x, label)
        found = list(solve_head("cross-entropy", dW, W))
        assert found
        best = min(found, key=lambda s: relative(s.x, x))
        assert relative(best.x, x) < 1e-9
        assert relative(best.g, g) < 1e-9
        for solution in found:
            assert consistent(solution, "cross-entropy", dW, W)


@SUITE
@given(size=st.integers(1, 12), seed=st.integers(0, 1000), label=st.sampled_from([0.0, 1.0]))
def test_logistic_head_without_bias(size: int, seed: int, label: float) -> None:
    W, x = 0.5 * normal(1, size, seed=seed), normal(size, seed=seed + 1)
    dW, g = observed("bce", W, x, label)
    found = list(solve_head("bce", dW, W))
    best = min(found, key=lambda s: relative(s.x, x))
    assert relative(best.x, x) < 1e-9
    assert relative(best.g, g) < 1e-9
    for solution in found:
        assert consistent(solution, "bce", dW, W)


@pytest.mark.parametrize("margin", [0.3, 0.9, 1.2, 1.4, 2.0, 4.0])
def test_twin_data_of_a_correctly_classified_example_are_both_valid(margin: float) -> None:
    # R-GAP, ICLR 2021: margin·σ(-margin) takes every value below its maximum twice.
    W = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64)
    x = torch.tensor([1.0, 0.5, -0.5], dtype=torch.float64)
    x = x * (margin / float(W[0] @ x))
    dW, _ = observed("bce", W, x, 1.0)
    found = list(solve_head("bce", dW, W))
    assert all(consistent(solution, "bce", dW, W) for solution in found)
    margins = sorted(float(W[0] @ solution.x) for solution in found)
    # Two margins, and the mirror image -x under the other label of each.
    assert margins == pytest.approx([-margins[3], -margins[2], margins[2], margins[3]])
    assert min(abs(m - margin) for m in margins) < 1e-9
    assert margins[2] < 1.2784645 < margins[3]
    sent = [m / (1 + math.exp(m)) for m in margins[2:]]
    assert sent[0] == pytest.approx(sent[1], rel=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e-6, 1e-4, 1e-3, 5e-3, -2e-3, -5e-3])
@pytest.mark.parametrize("loss", ["bce", "cross-entropy"])
def test_twins_that_nearly_coincide_are_found(loss: str, offset: float) -> None:
    # There the equation touches zero instead of crossing it: a search for sign changes on a grid
    # would miss both.
    margin = 1.2784645427610738 + offset
    row = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    W = row[None] if loss == "bce" else torch.stack([row / 2, -row / 2])
    x = torch.tensor([1.0, 0.5, -0.5], dtype=torch.float64)
    x = x * (margin / float(row @ x))
    dW, _ = observed(loss, W, x, 1.0 if loss == "bce" else 0)
    found = list(solve_head(loss, dW, W))
    assert found
    # At the double root itself only half of the digits can be had.
    assert min(relative(s.x, x) for s in found) < 1e-6
    assert all(consistent(s, loss, dW, W) for s in found)


@pytest.mark.parametrize("targets", [(1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.0, 0.0, 0.0)])
def test_logistic_head_of_several_outputs(targets: tuple[float, ...]) -> None:
    W, x = 0.5 * normal(3, 6, seed=1), normal(6, seed=2)
    target = torch.tensor(targets, dtype=torch.float64)
    dW, g = observed("bce", W, x, target)
    found = list(solve_head("bce", dW, W))
    assert min(relative(s.x, x) for s in found) < 1e-9
    assert min(relative(s.g, g) for s in found) < 1e-9


@pytest.mark.parametrize("loss", ["bce", "cross-entropy"])
def test_a_known_bias_is_taken_into_account(loss: str) -> None:
    rows = 1 if loss == "bce" else 5
    W, x, b = normal(rows, 7, seed=1), normal(7, seed=2), normal(rows, seed=3)
    dW, _ = observed(loss, W, x, 0, b)
    found = list(solve_head(loss, dW, W, b))
    assert min(relative(s.x, x) for s in found) < 1e-9


@pytest.mark.parametrize("classes", [1, 2, 10])
@pytest.mark.parametrize("gain", [1e-12, 1e-3, 10.0, 1e3, 1e6, 1e12])
def test_saturated_and_tiny_heads_do_not_crash(classes: int, gain: float) -> None:
    loss = "bce" if classes == 1 else "cross-entropy"
    W, x = gain * normal(classes, 4, seed=5), normal(4, seed=6)
    for label in range(max(2, classes)):
        dW, _ = observed(loss, W, x, label)
        for solution in solve_head(loss, dW, W):
            assert bool(torch.isfinite(solution.x).all())
            assert bool(torch.isfinite(solution.g).all())


def test_an_unlikely_label_is_solved_even_where_the_softmax_is_saturated() -> None:
    W, x = 20 * normal(5, 4, seed=5), normal(4, seed=6)
    label = int((W @ x).argmin())
    dW, _ = observed("cross-entropy", W, x, label)
    found = list(solve_head("cross-entropy", dW, W))
    assert min(relative(s.x, x) for s in found) < 1e-9


@pytest.mark.parametrize("seed", range(30))
def test_where_the_input_is_0_it_comes_back_as_0(seed: int) -> None:
    # Behind a ReLU a 0 is an output that is off, and 1e-17 one that is on. The right singular
    # vector of the gradient has such rounding for seed 10.
    W, x = normal(7, 4, seed=seed), normal(4, seed=seed + 100).relu()
    dW, _ = observed("cross-entropy", W, x, 0)
    for found in solve_head("cross-entropy", dW, W):
        assert torch.equal(found.x[x == 0], x[x == 0])
        assert torch.equal(found.x != 0, x != 0)


def test_a_gradient_of_zeros_has_no_solution() -> None:
    W = normal(3, 4, seed=0)
    assert list(solve_head("cross-entropy", torch.zeros_like(W), W)) == []
    assert list(solve_head("bce", torch.zeros(1, 4, dtype=torch.float64), W[:1])) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounded_gradients_give_a_rounded_answer(dtype: Any) -> None:
    W, x = 0.5 * normal(10, 6, seed=3), normal(6, seed=4)
    label = int((W @ x).argmin())
    dW, _ = observed("cross-entropy", W, x, label)
    found = list(solve_head("cross-entropy", dW.to(dtype).double(), W))
    assert min(relative(s.x, x) for s in found) < 20 * torch.finfo(dtype).eps


@pytest.mark.parametrize("batch", [1, 3])
def test_loss_values_are_those_of_torch(batch: int) -> None:
    z = normal(batch, 4, seed=0)
    label = torch.arange(batch) % 4
    expected = -torch.log_softmax(z, 1)[torch.arange(batch), label].mean()
    torch.testing.assert_close(loss_value("cross-entropy", z, label), expected)
    target = (z > 0).double()
    p = torch.sigmoid(z)
    expected = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    torch.testing.assert_close(loss_value("bce", z, target), expected)
    torch.testing.assert_close(loss_value("mse", z, target), (z - target).square().mean())


def test_worst_case_target_is_the_least_likely_one() -> None:
    z = torch.tensor([[0.1, -2.0, 3.0], [1.0, 2.0, 0.5]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    assert worst_case_target("cross-entropy", z, generator).tolist() == [1, 2]
    assert worst_case_target("bce", z, generator).tolist() == [[0, 1, 0], [0, 0, 0]]
    first = worst_case_target("mse", z, torch.Generator().manual_seed(7))
    assert torch.equal(first, worst_case_target("mse", z, torch.Generator().manual_seed(7)))
    assert first.shape == z.shape
