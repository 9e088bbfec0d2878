"""Single first layers as systems of equations, for `bench scale` and `bench solve`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from leakaudit.bench.machine import measure
from leakaudit.confirm.metrics import mse
from leakaudit.confirm.probes import make_probe
from leakaudit.counting.geometry import Axis, ConvolutionGeometry
from leakaudit.equations.convolution import Convolution
from leakaudit.equations.system import LayerSystem
from leakaudit.operators import Conv
from leakaudit.solvers.interface import Solution


def first_layer(
    size: int, filters: int, kernel: int, stride: int, seed: int, activation: str = "ReLU"
) -> tuple[LayerSystem, Tensor]:
    """A first layer 3 -> filters on a size x size picture, and its true input.

    Padding (kernel - stride + 1) // 2, weights normal with variance 2 / fan-in. Behind a ReLU the
    output gradient is normal where it is active and zero elsewhere, and the outputs are known where
    it is active; behind a LeakyReLU, which is invertible, all are.

    Returns:
        The equations, float64, and x (1, 3, size, size).
    """
    pad = max(0, (kernel - stride + 1) // 2)
    both = (kernel, kernel), (stride, stride), (pad, pad), (pad, pad), (1, 1)
    convolution = Convolution(Conv(*both), (1, 3, size, size), (filters, 3, kernel, kernel))
    axis = Axis(size, kernel, stride, pad, pad)
    geometry = ConvolutionGeometry(3, filters, (Axis(1), axis, axis))
    generator = torch.Generator().manual_seed(seed)
    x = make_probe(convolution.input_shape, seed).values
    fan_in = 3 * kernel**2
    w = torch.randn(convolution.weight_shape, generator=generator, dtype=torch.float64)
    w *= (2 / fan_in) ** 0.5
    o = convolution.output(x, w)
    mask = (o > 0).to(o.dtype) if activation == "ReLU" else torch.ones_like(o)
    G = torch.randn(o.shape, generator=generator, dtype=torch.float64) * mask
    system = LayerSystem(
        convolution=convolution,
        geometry=geometry,
        w=w,
        dw=convolution.weight_gradient(x, G),
        G=G,
        o=o * mask,
        mask=mask,
        precision=torch.finfo(torch.float64).eps,
    )
    return system, x


def training_pass(system: LayerSystem, x: Tensor) -> None:
    """One forward and backward pass of the layer: output, weight gradient, input gradient."""
    if system.G is None:
        raise ValueError("the output gradient is needed")
    system.convolution.output(x, system.w)
    system.convolution.weight_gradient(x, system.G)
    system.convolution.input_gradient(system.G, system.w)


def timed_solve(
    system: LayerSystem, x: Tensor, solver: Callable[[LayerSystem], Solution]
) -> dict[str, Any]:
    """What one solve took and gave, as a part of a result's row; `x` is the true input."""
    solution, measured = measure(lambda: solver(system))
    return {
        "unknowns": x.numel(),
        "solver": solution.solver,
        "iterations": solution.iterations,
        "rank": solution.rank,
        "seconds": measured.seconds,
        "peak_bytes": measured.peak_bytes,
        "mse": mse(solution.x, x),
    }


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """Median wall-clock time of some calls, after one that is not counted."""
    (seconds,) = side_by_side([function], repeats)
    return seconds


def side_by_side(functions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median wall-clock time of each, called in turn, after a round that is not counted.

    In turn, so that whatever else the machine does, and the memory that the system hands out for
    the first time, slows all of them alike.
    """
    times: list[list[float]] = [[] for _ in functions]
    for number in range(repeats + 1):
        for function, found in zip(functions, times, strict=True):
            started = time.perf_counter()
            function()
            if number:
                found.append(time.perf_counter() - started)
    return [statistics.median(found) for found in times]
