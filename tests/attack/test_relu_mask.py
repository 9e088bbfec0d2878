"""Which outputs of a ReLU are on, decided from noisy values with a known answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hand_built import graph_of, network
from hypothesis import given, settings, strategies as st

from leakaudit.attack.signs.saturation import match_sums, relu_threshold, saturated_exactly
from leakaudit.attack.state import State
from leakaudit.equations.known import Known
from leakaudit.facts.fact import gradient, value
from leakaudit.graph import Node
from leakaudit.operators import Activation, Clip, HardSigmoid, Relu, Sigmoid

EPS = torch.finfo(torch.float64).eps
SUITE = settings(max_examples=60, deadline=None, derandomize=True)


def activations(seed: int, *shape: int) -> Any:
    """True outputs of a ReLU: half are 0, the others at least 1e-3."""
    generator = torch.Generator().manual_seed(seed)
    o = torch.randn(shape, generator=generator, dtype=torch.float64)
    return torch.where(o > 0, o + 1e-3, 0.0)


def normal(seed: int, *shape: int) -> Any:
    generator = torch.Generator().manual_seed(seed + 10_000)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@SUITE
@given(seed=st.integers(0, 1000), noise=st.sampled_from([1e-14, 1e-9, 1e-6]))
def test_threshold_separates_rounding_from_signal(seed: int, noise: float) -> None:
    truth = activations(seed, 2, 3, 5, 5)
    y = truth + noise * normal(seed, 2, 3, 5, 5)
    for error in (5 * noise, 1e3 * noise):
        threshold = relu_threshold(y, min(error, 5e-4))
        assert torch.equal(y > threshold, truth > 0)


def test_exact_values_have_threshold_zero() -> None:
    y = torch.tensor([0.0, 1e-300, 2.0], dtype=torch.float64)
    assert relu_threshold(y, 0.0) == 0.0


def test_negative_values_show_the_noise_even_where_the_estimate_is_too_small() -> None:
    y = torch.tensor([-1e-6, 1.5e-6, 0.5, 1.0], dtype=torch.float64)
    threshold = relu_threshold(y, 1e-12)
    assert (y > threshold).tolist() == [False, False, True, True]


def test_all_on_and_all_off() -> None:
    on = torch.tensor([0.5, 1.0], dtype=torch.float64)
    assert bool((on > relu_threshold(on, 1e-9)).all())
    off = torch.tensor([1e-12, -1e-12, 3e-13], dtype=torch.float64)
    assert not bool((off > relu_threshold(off, 1e-9)).any())


@SUITE
@given(seed=st.integers(0, 1000), batch=st.integers(1, 3))
def test_an_output_on_by_less_than_the_noise_is_decided_by_the_bias_gradient(
    seed: int, batch: int
) -> None:
    noise = 1e-6
    truth = activations(seed, batch, 4, 3, 3)
    # In every channel one output is on by a tenth of the noise, the others that are off by none.
    truth[0, :, 1, 1] = 1e-7
    recovered = noise * normal(seed, batch, 4, 3, 3).clamp(-2, 2) * (truth == 0)
    y = truth + recovered.clamp_max(0)  # what is off comes back at 0 or below here
    g = normal(seed + 1, batch, 4, 3, 3)
    db = (g * (truth > 0)).sum(dim=(0, 2, 3))
    threshold = relu_threshold(y, 10 * noise)
    first_guess = y > threshold
    mask = match_sums(first_guess, y, g, db, 10 * noise, EPS)
    assert torch.equal(mask, truth > 0)
    assert not torch.equal(first_guess, truth > 0)


def test_an_output_that_is_off_but_came_back_positive_is_switched_off() -> None:
    y = torch.tensor([[[1e-7, 3e-7, 1.0, 2e-7]]], dtype=torch.float64)
    g = torch.tensor([[[0.3, 0.5, -0.7, 1.1]]], dtype=torch.float64)
    db = torch.tensor([0.5 - 0.7], dtype=torch.float64)  # only the second and the third are on
    everything = torch.ones_like(y, dtype=torch.bool)
    mask = match_sums(everything, y, g, db, 1e-6, EPS)
    assert mask.tolist() == [[[False, True, True, False]]]


def test_a_channel_that_fits_is_left_alone_and_so_is_one_that_fits_nowhere() -> None:
    y = torch.tensor([[[1.0, 1e-7], [1.0, 1e-7]]], dtype=torch.float64)
    g = torch.tensor([[[1.0, 2.0], [1.0, 2.0]]], dtype=torch.float64)
    guess = torch.tensor([[[True, False], [True, False]]])
    db = torch.tensor([1.0, 17.0], dtype=torch.float64)
    assert torch.equal(match_sums(guess, y, g, db, 1e-6, EPS), guess)


def test_outputs_beyond_the_error_are_never_in_doubt() -> None:
    y = torch.tensor([[[1.0, 0.5]]], dtype=torch.float64)
    g = torch.tensor([[[1.0, 2.0]]], dtype=torch.float64)
    guess = torch.ones_like(y, dtype=torch.bool)
    db = torch.tensor([1.0], dtype=torch.float64)  # would fit without the second
    assert torch.equal(match_sums(guess, y, g, db, 1e-6, EPS), guess)


@pytest.mark.parametrize("precision", [EPS, float(torch.finfo(torch.float32).eps)])
@pytest.mark.parametrize("error", [0.0, 1e-5])
@pytest.mark.parametrize(
    "op", [Relu(), Clip(-1.0, 2.0), Clip(0.0, 6.0), Clip(-0.5, 0.5), HardSigmoid(0.3, 0.5)], ids=str
)
def test_rounding_at_every_flat_end_is_removed(
    op: Activation, error: float, precision: float
) -> None:
    ends = op.saturation_levels
    assert ends is not None
    low, high = ends
    generator = torch.Generator().manual_seed(3)
    truth = (8 * torch.rand(1, 2, 8, 8, generator=generator, dtype=torch.float64) - 3).clamp(*ends)
    # What is not flat keeps clear of the ends, as all but a few values do.
    inside = (truth > low) & (truth < high)
    near = torch.minimum(truth - low, high - truth) < 1e-2
    truth = torch.where(inside & near, (low + min(high, 1.0)) / 2, truth)
    relative = torch.rand(truth.shape, generator=generator, dtype=torch.float64) - 0.5
    y = truth * (1 + precision * relative) + error * 0.1 * relative.flip(-1)
    model = network(torch.nn.ReLU())
    graph = graph_of(model, (1, 2, 8, 8))
    node = Node("0", op, ("input",), ("t0",))
    state = State(graph, {}, {}, precision, "cross-entropy")
    state.known[value("t0")] = Known(y, None, error)
    settled = saturated_exactly(state, node, ends)
    for end in ends:
        assert torch.equal(settled == end, truth == end)
    assert bool(((settled > low) & (settled < high))[inside].all())
    assert float((settled - truth).abs().max()) <= error + 10 * precision * float(truth.abs().max())


@pytest.mark.parametrize("op", [Relu(), Clip(0.0, 1.0), HardSigmoid(0.3, 0.5)], ids=str)
def test_the_bias_of_the_convolution_below_decides_what_the_noise_hides(op: Activation) -> None:
    shape = (1, 3, 4, 4)
    model = network(torch.nn.Conv2d(3, 3, 1), torch.nn.ReLU())
    graph = graph_of(model, shape)
    convolution = graph.nodes[0]
    node = Node("1", op, ("t0",), ("t1",))
    graph = replace(graph, nodes=(convolution, node))
    truth = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth = 0.1 + 0.8 * truth
    truth[..., 1] = 0  # a column of outputs that are off
    truth[..., 2, 2] = 1e-7  # and one that is on by a tenth of the noise
    if not isinstance(op, Relu):
        truth[..., 0] = 1  # flat at the upper end
    noise = 1e-6 * normal(2, *shape).clamp(-3, 3)
    y = truth + torch.where(truth == 0, -noise.abs(), torch.where(truth == 1, noise, 0.0))
    g = normal(5, *shape)
    slope = 0.3 if isinstance(op, HardSigmoid) else 1.0
    db = (slope * g * ((truth > 0) & (truth < 1))).sum(dim=(0, 2, 3))
    state = State(graph, {}, {"0.bias": db}, EPS, "cross-entropy")
    state.known[value("t1")] = Known(y, None, 1e-5)
    ends = op.saturation_levels
    assert ends is not None
    without = saturated_exactly(state, node, ends)
    assert not bool((without[..., 2, 2] > 0).any())  # hidden in the noise
    state.known[gradient("t1")] = Known(g)
    settled = saturated_exactly(state, node, ends)
    assert torch.equal(settled == 0, truth == 0)
    assert torch.equal(settled == 1, truth == 1)


def test_smooth_activations_have_no_saturation_levels() -> None:
    assert Sigmoid().saturation_levels is None
