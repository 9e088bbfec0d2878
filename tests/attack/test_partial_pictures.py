"""Pictures that fit an underdetermined layer: the prior, the equations, the inequalities."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from dense_reference import Case, layer

from leakaudit.attack.partial.admm import Term, minimise
from leakaudit.attack.partial.inequalities import Inequalities
from leakaudit.attack.partial.picture import (
    differences,
    differences_adjoint,
    shrink,
    smoothest_picture,
)
from leakaudit.bench.data import pictures
from leakaudit.confirm.metrics import mse, psnr
from leakaudit.confirm.partial_attempts import partial_leak
from leakaudit.confirm.probes import make_probe
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.interface import Solution
from leakaudit.solvers.matrix_free import MatrixFree


def total_variation(x: Any) -> float:
    return float(differences(x).square().sum(dim=(0, 2)).sqrt().sum())


photographs = pytest.mark.skipif(
    find_spec("foolbox") is None or find_spec("skimage") is None,
    reason="the extra bench, which carries photographs, is not installed",
)

# rho = 0.864: 2304 weight and 432 gradient constraints, 81 of them redundant, for 3072 unknowns.
NEARLY = layer((32, 32), 4, stride=2, padding=1, group_channels=3, group_filters=9)
# rho = 0.452
HALF = layer((32, 32), 3, stride=2, padding=1, group_channels=3, group_filters=5)
SMALL = layer((12, 12), 3, stride=2, padding=1, group_channels=3, group_filters=6)


def system_of(
    case: Case, x: torch.Tensor, seed: int = 0, *, relu: bool = False
) -> tuple[LayerSystem, Inequalities | None]:
    """Both sets of equations, float32 gradients; behind a ReLU only the half of o above 0."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.rand(case.weight_shape, generator=generator, dtype=torch.float64) - 0.5
    o = case.output(x, w)
    G = torch.randn(o.shape, generator=generator, dtype=torch.float64)
    mask, bounds = torch.ones_like(o), None
    if relu:
        bias = -o.mean(dim=(0, 2, 3), keepdim=True)  # half of the outputs are inactive
        mask = (o + bias > 0).double()
        G = G * mask
        infinity = torch.full_like(o, torch.inf)
        bounds = Inequalities(-infinity, torch.where(mask > 0, infinity, -bias))
    dw = case.weight_gradient(x, G).float().double()
    eps = torch.finfo(torch.float32).eps
    return LayerSystem(case.convolution, case.geometry, w, dw, G, o * mask, mask, eps), bounds


def minimum_norm(system: LayerSystem) -> Solution:
    return MatrixFree().solve(system)


@photographs
@pytest.mark.parametrize("dataset", ["photographs", "cifar10"])
def test_a_nearly_determined_photograph_comes_back(dataset: str) -> None:
    for picture in pictures(dataset, 3, (1, 3, 32, 32)):
        x = picture.values
        system, _ = system_of(NEARLY, x)
        solution = minimum_norm(system)
        leak = partial_leak(system, solution, x, (0.0, 1.0), None)
        assert leak.psnr > 33, picture.name
        assert leak.psnr > psnr(mse(solution.x, x)) + 15
        assert leak.ssim > 0.97


@photographs
def test_a_half_determined_photograph_comes_back_blurred() -> None:
    for picture in pictures("photographs", 3, (1, 3, 32, 32)):
        x = picture.values
        system, _ = system_of(HALF, x)
        leak = partial_leak(system, minimum_norm(system), x, (0.0, 1.0), None)
        assert 19 < leak.psnr < 33, picture.name


def test_the_less_is_determined_the_less_comes_back() -> None:
    x = make_probe((1, 3, 32, 32), 1).values
    found = []
    for case in (NEARLY, HALF):
        system, _ = system_of(case, x)
        solution = minimum_norm(system)
        leak = partial_leak(system, solution, x, (0.0, 1.0), None)
        found.append(leak.psnr)
        assert leak.psnr > psnr(mse(solution.x, x)) + 10
    assert found[0] > found[1] + 5
    assert found[0] > 28


def gains_of_sides(*seeds: int) -> list[float]:
    """PSNR that the sides add, by seed; the ReLU of the convolution hides half of its outputs."""
    case = layer((32, 32), 3, padding=1, group_channels=3, group_filters=4)
    gains = []
    for seed in seeds:
        x = make_probe((1, 3, 32, 32), seed).values
        system, bounds = system_of(case, x, seed, relu=True)
        assert system.mask is not None
        assert 0.4 < float(system.mask.mean()) < 0.6
        start = minimum_norm(system)
        without = smoothest_picture(system, start.x, start.residual, (0.0, 1.0))
        informed = smoothest_picture(system, start.x, start.residual, (0.0, 1.0), bounds)
        gains.append(psnr(mse(informed.x, x)) - psnr(mse(without.x, x)))
        o = case.output(informed.x, system.w)
        assert bounds is not None
        beyond = (o - bounds.high).clamp_min(0) * (1 - system.mask)
        assert float(beyond.max()) < 0.02  # the outputs have a spread of about 1
    return gains


def test_the_sides_of_inactive_outputs_help() -> None:
    (gain,) = gains_of_sides(0)
    assert gain > 0


@pytest.mark.slow
def test_the_sides_of_inactive_outputs_help_more_than_a_little() -> None:
    gains = gains_of_sides(0, 1, 2)
    assert min(gains) > 0
    assert sum(gains) / 3 > 0.5


def test_it_fits_the_equations_and_keeps_the_range() -> None:
    x = make_probe((1, 3, 12, 12), 0).values
    system, _ = system_of(SMALL, x)
    solution = minimum_norm(system)
    found = smoothest_picture(system, solution.x, solution.residual, (0.0, 1.0), limit=3000)
    assert found.converged
    assert found.residual < 1e-5
    assert float(found.x.min()) >= 0
    assert float(found.x.max()) <= 1
    # Its own convolution gives what was known, by a convolution that is not leakaudit's.
    assert system.o is not None
    assert float((SMALL.output(found.x, system.w) - system.o).abs().max()) < 1e-4


def test_nothing_that_fits_varies_less() -> None:
    """Against the null space of the dense stack: every step in it raises the variation."""
    x = make_probe((1, 3, 12, 12), 0).values
    system, _ = system_of(SMALL, x)
    assert system.G is not None
    stack = torch.cat([SMALL.gradient_matrix(system.G), SMALL.weight_matrix(system.w)])
    _, s, Vh = torch.linalg.svd(stack)
    null = Vh[int((s > 1e-9 * s[0]).sum()) :]
    assert null.shape[0] > 20
    solution = minimum_norm(system)
    found = smoothest_picture(system, solution.x, solution.residual, limit=5000)
    least = total_variation(found.x)
    assert least < 0.5 * total_variation(solution.x)
    generator = torch.Generator().manual_seed(0)
    for size in (1e-3, 1e-2, 0.1):
        for _ in range(20):
            z = torch.randn(null.shape[0], generator=generator, dtype=torch.float64)
            step = (z / z.norm()) @ null
            assert total_variation(found.x + size * step.reshape(x.shape)) > least - 1e-4


def test_the_iteration_limit_is_kept_and_told() -> None:
    x = make_probe((1, 3, 12, 12), 0).values
    system, _ = system_of(SMALL, x)
    found = smoothest_picture(system, torch.zeros_like(x), 0.0, limit=3)
    assert (found.iterations, found.converged) == (3, False)


def test_every_reconstruction_is_listed_and_the_most_informed_leads() -> None:
    x = make_probe((1, 3, 12, 12), 0).values
    system, bounds = system_of(SMALL, x, relu=True)
    assert bounds is not None
    assert system.mask is not None
    leak = partial_leak(system, minimum_norm(system), x, (0.0, 1.0), bounds)
    first, second, third = leak.attempts
    assert first.startswith("minimum norm: MSE ")
    assert second.startswith("total-variation prior: MSE ")
    inactive = int((system.mask == 0).sum())
    assert f"values in [0, 1], {inactive} flat outputs as inequalities: MSE" in third
    assert f"PSNR {leak.psnr:.1f} dB" in third
    assert leak.psnr == psnr(mse(leak.x, x))
    assert "iterations" in second
    without = partial_leak(system, minimum_norm(system), x, None, None)
    assert len(without.attempts) == 2


def test_two_runs_are_equal() -> None:
    x = make_probe((1, 3, 12, 12), 0).values
    system, bounds = system_of(SMALL, x, relu=True)
    start = minimum_norm(system).x
    first, second = (smoothest_picture(system, start, 0.0, (0.0, 1.0), bounds) for _ in range(2))
    assert torch.equal(first.x, second.x)


def test_coarse_gradients_are_not_taken_at_their_word() -> None:
    """Equations rounded to bfloat16: fitting them exactly would fit their rounding."""
    x = make_probe((1, 3, 32, 32), 3).values
    system, _ = system_of(NEARLY, x)
    assert system.dw is not None
    rounded = replace(
        system, dw=system.dw.bfloat16().double(), precision=torch.finfo(torch.bfloat16).eps
    )
    solution = minimum_norm(rounded)
    found = smoothest_picture(rounded, solution.x, solution.residual, (0.0, 1.0))
    taken = smoothest_picture(replace(rounded, precision=1e-9), solution.x, 0.0, (0.0, 1.0))
    assert psnr(mse(found.x, x)) > 28
    assert psnr(mse(found.x, x)) > psnr(mse(taken.x, x)) - 0.5


def test_without_equations_there_is_no_picture() -> None:
    x = make_probe((1, 3, 12, 12), 0).values
    system, _ = system_of(SMALL, x)
    empty = replace(system, dw=None, G=None, o=None, mask=None)
    with pytest.raises(ValueError, match="no equations"):
        smoothest_picture(empty, x, 0.0)


class TestTotalVariation:
    def draw(self, *shape: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def test_the_adjoint(self) -> None:
        x, d = self.draw(2, 3, 5, 4), self.draw(2, 2, 3, 5, 4, seed=1)
        left, right = torch.sum(differences(x) * d), torch.sum(x * differences_adjoint(d))
        assert float(left) == pytest.approx(float(right), rel=1e-12)

    def test_a_flat_picture_has_none_and_an_edge_its_height_times_its_length(self) -> None:
        x = torch.full((1, 3, 6, 6), 0.3, dtype=torch.float64)
        assert total_variation(x) == 0
        x[:, :, :, 3:] += 0.2
        # The channels count together: the length of (0.2, 0.2, 0.2) per pixel of the edge.
        assert total_variation(x) == pytest.approx(6 * 0.2 * 3**0.5)

    def test_shrinking_is_the_proximal_map(self) -> None:
        v = self.draw(2, 1, 3, 4, 4)
        threshold = 0.7

        def objective(z: torch.Tensor) -> float:
            length = z.square().sum(dim=(0, 2)).sqrt().sum()
            return float(threshold * length + 0.5 * (z - v).square().sum())

        z = shrink(v, threshold)
        least = objective(z)
        for seed in range(30):
            assert objective(z + 1e-3 * self.draw(*v.shape, seed=seed + 2)) > least


def test_the_minimiser_solves_a_problem_with_a_known_answer() -> None:
    """min |x| subject to a·x = 1 and 0 <= x <= 0.6 for a = (2, 1): x = (0.5, 0), |x| weighted."""
    a = torch.tensor([2.0, 1.0], dtype=torch.float64)

    def same(v: torch.Tensor) -> torch.Tensor:
        return v

    terms = [
        Term(same, same, lambda v: v.sign() * (v.abs() - 1).clamp_min(0), 1.0),
        Term(lambda x: (a @ x)[None], lambda y: a * y, lambda v: torch.ones_like(v), 1.0),
        Term(same, same, lambda v: v.clamp(0, 0.6), 1.0),
    ]
    found = minimise(terms, torch.zeros(2, dtype=torch.float64), 500)
    assert found.converged
    assert found.x.tolist() == pytest.approx([0.5, 0.0], abs=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_the_same_picture() -> None:
    x = make_probe((1, 3, 12, 12), 0).values
    system, _ = system_of(SMALL, x)
    start = minimum_norm(system).x
    tensors = {name: getattr(system, name).cuda() for name in ("w", "dw", "G", "o", "mask")}
    there = replace(system, **tensors)
    here = smoothest_picture(system, start, 0.0, (0.0, 1.0))
    found = smoothest_picture(there, start.cuda(), 0.0, (0.0, 1.0))
    assert found.x.is_cuda
    assert float((found.x.cpu() - here.x).abs().max()) < 1e-4
