"""The smoothest picture that fits an underdetermined layer."""

from __future__ import annotations

import torch

from leakaudit.counting.geometry import Axis, ConvolutionGeometry
from leakaudit.graph.operators import Conv
from leakaudit.rconv.convolution import Convolution
from leakaudit.rconv.metrics import mse, psnr
from leakaudit.rconv.prior import differences, smoothest
from leakaudit.rconv.probes import make_probe
from leakaudit.rconv.solvers.interface import LayerSystem, Solution
from leakaudit.rconv.solvers.solve import solve_layer


def underdetermined() -> tuple[torch.Tensor, Solution, Convolution, torch.Tensor]:
    """The worked example of a 16 x 16 picture through 8 filters: rank 664 of 768."""
    shape = (1, 3, 16, 16)
    convolution = Convolution(Conv((3, 3), (2, 2), (1, 1), (1, 1), (1, 1)), shape, (8, 3, 3, 3))
    generator = torch.Generator().manual_seed(0)
    w = torch.rand((8, 3, 3, 3), generator=generator, dtype=torch.float64) - 0.5
    x = make_probe(shape, 0).values
    o = convolution.output(x, w)
    G = torch.randn(o.shape, generator=generator, dtype=torch.float64)
    geometry = ConvolutionGeometry(3, 8, (Axis(1), Axis(16, 3, 2, 1, 1), Axis(16, 3, 2, 1, 1)))
    system = LayerSystem(
        convolution,
        geometry,
        w,
        convolution.weight_gradient(x, G),
        G,
        o,
        torch.ones_like(o),
        2.2e-16,
    )
    return x, solve_layer(system), convolution, w


def test_it_fits_the_equations_and_beats_the_minimum_norm() -> None:
    x, solution, convolution, w = underdetermined()
    assert (solution.rank, solution.unknowns) == (664, 768)
    assert solution.null_space is not None
    assert solution.null_space.shape == (768, 104)
    # Directions of the null space change no output.
    direction = solution.null_space[:, 0].reshape(x.shape)
    assert float(convolution.output(direction, w).abs().max()) < 1e-9
    picture = smoothest(solution.x, solution.null_space)
    gain = psnr(mse(picture, x)) - psnr(mse(solution.x, x))
    assert gain > 6
    assert psnr(mse(picture, x)) > 20
    assert float(picture.min()) >= 0
    assert float(picture.max()) <= 1


def test_nothing_that_fits_is_smoother() -> None:
    _, solution, _, _ = underdetermined()
    assert solution.null_space is not None
    # Values far from the ends of [0, 1], so that clipping plays no part.
    centre = 0.5 + 0.01 * solution.x
    best = smoothest(centre, solution.null_space)
    roughness = float(differences(best).square().sum())
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        z = torch.randn(solution.null_space.shape[1], generator=generator, dtype=torch.float64)
        other = best + 1e-3 * (solution.null_space @ z).reshape(best.shape)
        assert float(differences(other).square().sum()) > roughness
