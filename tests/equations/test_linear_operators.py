"""Every operator against the dense matrix that differentiation gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from dense_reference import Case, cases, layer
from hypothesis import example, given, settings, strategies as st

from leakaudit.equations.linear_maps import (
    GradientConstraints,
    WeightConstraints,
    row_scale,
)

SUITE = settings(max_examples=40, deadline=None, derandomize=True)
SEEDS = st.integers(0, 1000)


def random_scale(case: Case, seed: int) -> Any:
    """One factor per filter, between 0.5 and 1.5."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(case.weight_shape[0], generator=generator, dtype=torch.float64) + 0.5


def gradient_constraints(case: Case, seed: int) -> tuple[GradientConstraints, Any]:
    """The operator with random row scales, and its dense matrix."""
    _, _, G = case.draw(seed)
    scale = random_scale(case, seed)
    rows = scale.repeat_interleave(torch.tensor(case.weight_shape[1:]).prod())
    dense = rows[:, None] * case.gradient_matrix(G)
    return GradientConstraints(case.convolution, G, scale), dense


def weight_constraints(case: Case, seed: int) -> tuple[WeightConstraints, Any]:
    """The operator with random row scales and a random mask, and its dense matrix."""
    _, w, G = case.draw(seed)
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(G.shape, generator=generator) < (seed % 3) / 2).double()
    scale = random_scale(case, seed)
    rows = mask * scale.view(1, -1, *[1] * len(case.sizes))
    dense = rows.reshape(-1)[:, None] * case.weight_matrix(w)
    return WeightConstraints(case.convolution, w, mask, scale), dense


Factory = Callable[[Case, int], tuple[Any, Any]]
FACTORIES = [gradient_constraints, weight_constraints]


@pytest.mark.parametrize("factory", FACTORIES)
class TestEveryOperator:
    """A new operator joins by one factory in FACTORIES."""

    @SUITE
    @given(case=cases(), seed=SEEDS)
    @example(case=layer((5,), 3, stride=4), seed=2)  # pixels that no tap reads
    @example(case=layer((1, 1), 3, padding=2), seed=2)  # every position is a corner
    @example(case=layer((5, 4), (3, 1), stride=(1, 3), groups=2, batch=2), seed=1)
    def test_applies_the_dense_matrix(self, factory: Factory, case: Case, seed: int) -> None:
        operator, dense = factory(case, seed)
        x, _, _ = case.draw(seed + 1)
        torch.testing.assert_close(operator.mv(x).reshape(-1), dense @ x.reshape(-1))

    @SUITE
    @given(case=cases(), seed=SEEDS)
    def test_adjoint_applies_the_transposed_matrix(
        self, factory: Factory, case: Case, seed: int
    ) -> None:
        operator, dense = factory(case, seed)
        shape = operator.mv(torch.zeros(case.input_shape, dtype=torch.float64)).shape
        y = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        back = operator.rmv(y)
        assert back.shape == case.input_shape
        torch.testing.assert_close(back.reshape(-1), dense.T @ y.reshape(-1))

    @SUITE
    @given(case=cases(), seed=SEEDS)
    def test_passes_the_dot_test(self, factory: Factory, case: Case, seed: int) -> None:
        operator, _ = factory(case, seed)
        x, _, _ = case.draw(seed + 1)
        image = operator.mv(x)
        generator = torch.Generator().manual_seed(seed)
        y = torch.randn(image.shape, generator=generator, dtype=torch.float64)
        left, right = (image * y).sum(), (x * operator.rmv(y)).sum()
        torch.testing.assert_close(left, right, atol=1e-11, rtol=1e-11)

    @SUITE
    @given(case=cases(), seed=SEEDS)
    def test_right_hand_side_of_the_truth_is_its_image(
        self, factory: Factory, case: Case, seed: int
    ) -> None:
        operator, _ = factory(case, seed)
        x, w, G = case.draw(seed)
        if isinstance(operator, GradientConstraints):
            observed = case.weight_gradient(x, G)
        else:
            observed = case.output(x, w)
            # What is not known may hold anything: it must not enter.
            observed = torch.where(operator.mask > 0, observed, torch.nan)
        torch.testing.assert_close(operator.right_hand_side(observed), operator.mv(x))

    @pytest.mark.cuda
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    @pytest.mark.parametrize(
        "case",
        [
            layer((9,), 3, stride=2, padding=1, batch=2),
            layer((7, 5), (3, 2), stride=(2, 1), padding=1, groups=2, group_channels=2),
            Case((6, 5), (3, 3), (2, 2), (0, 1), (1, 2), (1, 2), 1, 3, 4, 2),
            layer((4, 5, 3), 2, dilation=2, padding=1, group_filters=3),
        ],
    )
    def test_cuda_equals_cpu(self, factory: Factory, case: Case) -> None:
        from dataclasses import fields, replace

        operator, _ = factory(case, 1)
        moved = replace(
            operator,
            **{
                f.name: getattr(operator, f.name).cuda()
                for f in fields(operator)
                if isinstance(getattr(operator, f.name), torch.Tensor)
            },
        )
        x, _, _ = case.draw(2)
        y = operator.mv(x)
        on_device = moved.mv(x.cuda())
        assert on_device.is_cuda
        torch.testing.assert_close(on_device.cpu(), y, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(
            moved.rmv(y.cuda()).cpu(), operator.rmv(y), rtol=1e-11, atol=1e-11
        )


@SUITE
@given(case=cases(), seed=SEEDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_three_maps_of_a_convolution_are_those_of_autograd(
    case: Case, seed: int, dtype: Any
) -> None:
    x, w, G = (t.to(dtype) for t in case.draw(seed))
    x.requires_grad_(True)
    w.requires_grad_(True)
    o = case.output(x, w)
    dx, dw = torch.autograd.grad(o, (x, w), G)
    ours = case.convolution
    torch.testing.assert_close(ours.output(x, w), o)
    torch.testing.assert_close(ours.input_gradient(G, w.detach()), dx)
    torch.testing.assert_close(ours.weight_gradient(x.detach(), G), dw)
    assert ours.weight_gradient(x.detach(), G).dtype is dtype


def test_an_expanded_gradient_gives_what_its_copy_gives() -> None:
    case = layer((5, 5), 3, stride=2, padding=1, group_filters=2, batch=2)
    x, w, G = case.draw(0)
    flat = G.mean(dim=(2, 3), keepdim=True).expand(G.shape)  # as average pooling leaves it
    scale = torch.ones(2, dtype=torch.float64)
    thin, full = (GradientConstraints(case.convolution, g, scale) for g in (flat, flat.clone()))
    torch.testing.assert_close(thin.mv(x), full.mv(x))
    torch.testing.assert_close(thin.rmv(w), full.rmv(w))


def test_scaled_rows_of_every_live_filter_have_unit_norm() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.05, 0.0]], dtype=torch.float64)
    scale = row_scale(rows)
    assert (rows * scale[:, None]).norm(dim=1).tolist() == pytest.approx([1.0, 0.0, 1.0])
    assert scale[1] == 1.0  # a dead filter is left alone


def test_rounding_of_a_nearly_dead_filter_is_not_blown_up() -> None:
    rows = torch.tensor([[1.0, 0.0], [1e-12, 0.0]], dtype=torch.float64)
    assert row_scale(rows).tolist() == pytest.approx([1.0, 1e3])
