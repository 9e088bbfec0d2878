"""The input of a convolution below a normalisation: claims against dense systems and the truth.

The dense systems are Jacobians by autograd of the equations as written on paper, with the true
statistics of the layer: nothing of the package enters them but the shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from case_audits import exported
from claims import check_claims
from torch import Tensor, nn

from leakaudit.attack.reconstruct import Reconstruction, reconstruct
from leakaudit.confirm.client import share_gradient
from leakaudit.confirm.confirm import load_weights
from leakaudit.facts.fact import Derivation, Kind, Quality
from leakaudit.graph import Graph
from leakaudit.leakpath.path import find_leak_path

NORMS = {
    "groups": lambda f, size: nn.GroupNorm(2, f),
    "one group": lambda f, size: nn.GroupNorm(1, f),
    "instances": lambda f, size: nn.GroupNorm(f, f),
    "batch": lambda f, size: nn.BatchNorm2d(f),
    "layer": lambda f, size: nn.LayerNorm([f, size, size]),
    "planes": lambda f, size: nn.LayerNorm([size, size]),
    "rms": lambda f, size: nn.RMSNorm([f, size, size]),
}


@dataclass(frozen=True)
class Drawn:
    """A random network, conv - norm - LeakyReLU - dense, with its parts."""

    norm: str
    module: nn.Sequential
    shape: tuple[int, ...]

    @property
    def conv(self) -> nn.Conv2d:
        part = self.module[0]
        assert isinstance(part, nn.Conv2d)
        return part


def draw(norm: str, seed: int) -> Drawn:
    """Sizes small enough for a dense Jacobian; some of the systems are short of rank."""
    generator = torch.Generator().manual_seed(seed)

    def pick(*choices: int) -> int:
        return choices[int(torch.randint(len(choices), (1,), generator=generator))]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        channels, size, groups = pick(1, 2, 3), pick(4, 5, 6, 7), 1
        filters = pick(4, 6, 8, 12)
        if channels == 2:
            groups = pick(1, 2)
        conv = nn.Conv2d(
            *(channels, filters, pick(2, 3), pick(1, 2, 2), pick(0, 1)),
            groups=groups,
            bias=bool(pick(0, 1)),
        )
        shape = (1, channels, size, size)
        out = conv(torch.zeros(shape)).shape
        layer = NORMS[norm](filters, out[-1])
        nn.init.uniform_(layer.weight, 0.5, 1.5)
        if getattr(layer, "bias", None) is not None:
            nn.init.uniform_(layer.bias, -0.3, 0.3)
        head = nn.Linear(out.numel(), 6)
        module = nn.Sequential(conv, layer, nn.LeakyReLU(0.3), nn.Flatten(), head)
    return Drawn(norm, module.double().train(), shape)


def claim(graph: Graph) -> Derivation | None:
    """The derivation of the input, where there is one."""
    known = find_leak_path(graph, "cross-entropy").knowledge
    history = [step for steps in known.history.values() for _, step in steps]
    return next((s for s in history if s.kind == "normalised-convolution-value"), None)


def shared_by(drawn: Drawn, graph: Graph) -> tuple[dict[str, Tensor], Reconstruction, Tensor]:
    weights = load_weights(graph, torch.device("cpu"))
    x = torch.rand(drawn.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    shared = share_gradient(graph, weights, {graph.inputs[0]: x}, "cross-entropy", torch.float64, 0)
    found = reconstruct(graph, weights, shared.gradients, "cross-entropy")
    return dict(shared.gradients), found, x


def dense_nullity(drawn: Drawn, x: Tensor) -> int:
    """Dimensions of (x, deviations, means) that the equations leave open, right-hand sides 0."""
    conv, norm = drawn.conv, drawn.module[1]
    w = conv.weight.detach()
    o = conv(x).detach().requires_grad_(True)
    z = norm(o)
    g = torch.rand(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(1)) - 0.5
    # Any dl/dz will do for the rank: dl/do by autograd through the normalisation itself.
    (G,) = torch.autograd.grad(z, o, g)
    o = o.detach()
    filters = o.shape[1]
    count = {
        **{"groups": 2, "one group": 1, "layer": 1, "rms": 1},
        **{"instances": filters, "batch": filters, "planes": filters},
    }[drawn.norm]
    parts = o.reshape(count, -1)
    centred = drawn.norm != "rms"
    mean = parts.mean(1, keepdim=True) if centred else torch.zeros(count, 1)
    variance = (parts - mean).square().mean(1, keepdim=True)
    sigma = (variance + (norm.eps or torch.finfo(torch.float64).eps)).sqrt()
    normalised = (parts - mean) / sigma
    dw = torch.nn.grad.conv2d_weight(
        x, w.shape, G, conv.stride, conv.padding, conv.dilation, conv.groups
    )

    def equations(unknown: Tensor, deviation: Tensor, means: Tensor) -> Tensor:
        output = F.conv2d(unknown, w, None, conv.stride, conv.padding, 1, conv.groups)
        left = output.reshape(count, -1) - deviation[:, None] * normalised
        left = left - (means[:, None] if centred else 0)
        per_filter = deviation.repeat_interleave(filters // count)[:, None, None, None]
        true = sigma[:, 0].repeat_interleave(filters // count)[None, :, None, None]
        change = torch.nn.grad.conv2d_weight(
            unknown, w.shape, true * G, conv.stride, conv.padding, conv.dilation, conv.groups
        )
        return torch.cat([left.flatten(), (change - per_filter * dw).flatten()])

    start = (torch.zeros_like(x), torch.zeros(count, dtype=x.dtype), torch.zeros(count).double())
    blocks = torch.autograd.functional.jacobian(equations, start, vectorize=True)
    matrix = torch.cat([block.reshape(block.shape[0], -1) for block in blocks], 1)
    if not centred:
        matrix = matrix[:, :-count]
    return matrix.shape[1] - int(torch.linalg.matrix_rank(matrix, rtol=1e-9))


def compare(norm: str, seeds: range) -> tuple[int, int]:
    """Claims are made where the dense system has the rank, and only there; numbers are right.

    Returns:
        How many inputs came back, and how many were rightly not claimed.
    """
    came_back = refused = 0
    for seed in seeds:
        drawn = draw(norm, seed)
        if drawn.conv(torch.zeros(drawn.shape).double())[0, 0].numel() == 1:
            continue  # torch refuses to normalise one number
        graph = exported(drawn.module, drawn.shape)
        claimed = claim(graph)
        _, found, x = shared_by(drawn, graph)
        absorbed = norm in ("instances", "batch", "planes")
        open_factor = absorbed or drawn.conv.bias is None
        nullity = dense_nullity(drawn, x)
        if nullity != open_factor:
            assert claimed is None, f"{norm} {seed}: {nullity} dimensions are open"
            refused += 1
            continue
        assert claimed is not None, f"{norm} {seed}: the dense system has the rank"
        assert claimed.quality is (Quality.SCALED if open_factor else Quality.EXACT)
        assert found.broken is None
        got = found.values[graph.inputs[0]].tensor
        factor = float((got * x).sum() / got.square().sum()) if open_factor else 1.0
        assert factor > 0
        assert float((factor * got - x).abs().max()) < 1e-8
        came_back += 1
    return came_back, refused


@pytest.mark.parametrize("norm", NORMS)
def test_claims_are_those_of_the_dense_system(norm: str) -> None:
    came_back, refused = compare(norm, range(4, 8))
    assert came_back
    assert refused or norm in ("groups", "one group", "layer", "rms")


def test_statistics_of_parts_of_a_channel_are_not_followed() -> None:
    module = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.LayerNorm([6]), nn.LeakyReLU()),
        *(nn.Flatten(), nn.Linear(8 * 36, 5)),
    )
    assert claim(exported(module, (1, 1, 6, 6))) is None


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_claims_are_those_of_the_dense_system_for_many_more(norm: str) -> None:
    assert compare(norm, range(8, 60))[0]


def test_with_a_bias_the_path_goes_on_below() -> None:
    """Statistics that are known give the layer's output, and that its gradient."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(2, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(8, 12, 3, padding=1), nn.GroupNorm(3, 12), nn.LeakyReLU(0.2)),
        *(nn.Flatten(), nn.Linear(12 * 25, 7)),
    ).double()
    done = check_claims(exported(module, (1, 2, 5, 5)), 0)
    assert done.reached
    assert not done.broken
    assert done.steps["normalised-convolution-value"]
    assert done.compared[Kind.GRADIENT, Quality.EXACT] >= 6


def test_outputs_that_are_hidden_leave_weight_constraints_only() -> None:
    """The ReLU hides half of 16 outputs for each pixel, and four times the unknowns are left."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(2, 16), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16 * 36, 7)),
    ).double()
    done = check_claims(exported(module, (1, 1, 6, 6)), 0)
    assert done.reached
    assert done.steps["normalised-convolution-value"]


def test_equations_that_are_too_few_are_said_to_be() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, stride=2), nn.GroupNorm(2, 4), nn.LeakyReLU()),
        *(nn.Flatten(), nn.Linear(36, 5)),
    )
    report = find_leak_path(exported(module, (1, 3, 7, 7)), "cross-entropy").report
    (reason,) = [stop.reason for stop in report.stopped]
    assert "statistic" in reason
    assert "rank bound" in reason
    assert "unknowns" in reason


def test_systems_that_are_too_large_are_a_stop_that_says_so() -> None:
    module = nn.Sequential(
        *(nn.Conv2d(3, 24, 3, padding=1), nn.GroupNorm(2, 24), nn.LeakyReLU()),
        *(nn.Flatten(), nn.Linear(24 * 48 * 48, 2)),
    )
    report = find_leak_path(exported(module, (1, 3, 48, 48)), "cross-entropy").report
    (reason,) = [stop.reason for stop in report.stopped]
    assert "more than the 4096 unknowns" in reason
