"""Layers with a known input, for solvers to solve, and what their solutions have to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from dense_reference import Case, scaled_stack
from hypothesis import settings, strategies as st

from leakaudit.equations.linear_maps import row_scale
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.interface import Solution

SUITE = settings(max_examples=50, deadline=None, derandomize=True)
SEEDS = st.integers(0, 1000)
KNOWN = st.sampled_from([1.0, 0.7])
EPS = torch.finfo(torch.float64).eps
GAP = 1e-6  # singular values between EPS and this are neither clearly zero nor clearly not


@dataclass(frozen=True)
class Problem:
    """A layer's equations with a known input, and their dense scaled stack."""

    case: Case
    system: LayerSystem
    x: Any
    S: Any
    rhs: Any

    @property
    def singular_values(self) -> Any:
        return torch.linalg.svdvals(self.S)

    @property
    def rank_is_clear(self) -> bool:
        """Whether every singular value is clearly zero or clearly not, and one is not."""
        s = self.singular_values
        if len(s) == 0 or float(s[0]) == 0:
            return False
        return bool(((s > GAP * s[0]) | (s < 1e-11 * s[0])).all())

    @property
    def minimum_norm(self) -> Any:
        """LAPACK's least squares on the dense stack."""
        rhs = self.rhs[:, None]
        return torch.linalg.lstsq(self.S, rhs, rcond=GAP, driver="gelsd").solution[:, 0]


def problem(
    case: Case, seed: int, which: str = "both", known: float = 1.0, noise: float = 0.0
) -> Problem:
    """Set up both sets of equations, or one of them, for a random input.

    Args:
        case: The layer.
        seed: Of x, w, G, the mask and the noise.
        which: `gradient`, `weight` or `both`.
        known: Share of the outputs that are known.
        noise: Added to both right-hand sides, which makes them inconsistent.
    """
    x, w, G = case.draw(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    o, dw = case.output(x, w), case.weight_gradient(x, G)
    o = o + noise * torch.randn(o.shape, generator=generator, dtype=torch.float64)
    dw = dw + noise * torch.randn(dw.shape, generator=generator, dtype=torch.float64)
    mask = (torch.rand(o.shape, generator=generator) < known).double()
    gradient, weight = which != "weight", which != "gradient"
    system = LayerSystem(
        case.convolution,
        case.geometry,
        w,
        dw if gradient else None,
        G if gradient else None,
        torch.where(mask > 0, o, 0.0) if weight else None,
        mask if weight else None,
        EPS,
    )
    scale_G, scale_w = row_scale(G.transpose(0, 1)), row_scale(w)
    S = scaled_stack(case, w, G if gradient else None, mask if weight else None, scale_G, scale_w)
    parts = []
    if gradient:
        parts.append((dw * scale_G.view(-1, *[1] * (dw.dim() - 1))).reshape(-1))
    if weight:
        scaled = o * scale_w.view(1, -1, *[1] * (o.dim() - 2))
        parts.append(scaled.reshape(-1)[mask.reshape(-1) > 0])
    return Problem(case, system, x, S, torch.cat(parts))


def check(found: Problem, solution: Solution) -> None:
    """Rank, solution and residual are LAPACK's, as far as the condition number lets them be."""
    s = found.singular_values
    largest = float(s[0])
    kept = s[s > GAP * largest]
    assert solution.rank == len(kept)
    assert solution.unknowns == found.case.unknowns
    assert solution.full_rank is (len(kept) == found.case.unknowns)
    condition = largest / float(kept[-1])
    expected = found.minimum_norm
    error = float((solution.x.reshape(-1) - expected).norm())
    assert error <= 1e-12 * condition**1.5 * max(1.0, float(expected.norm()))
    left = found.S @ expected - found.rhs
    relative = float(left.norm() / found.rhs.norm())
    assert solution.residual == pytest.approx(relative, rel=1e-3, abs=1e-10)
    assert solution.x.shape == found.x.shape


def check_singular_values(found: Problem, solution: Solution) -> None:
    """The extreme ones of the whole stack, from inside its spectrum."""
    s = found.singular_values
    kept = s[s > GAP * s[0]]
    assert solution.singular_values is not None
    largest, smallest = solution.singular_values
    assert 0.7 * float(kept[0]) <= largest <= float(kept[0]) * (1 + 1e-6)
    assert float(kept[-1]) * (1 - 1e-6) <= smallest <= float(kept[-1]) * 1.5


def check_full_rank_claim(found: Problem, solution: Solution) -> None:
    """A claimed rank is the dense one and covers all that is read; the solution is then right."""
    if solution.rank is None:
        return
    s = found.singular_values
    read = found.S.abs().sum(dim=0) > 0
    assert solution.rank == int(read.sum()) == int((s > GAP * s[0]).sum())
    truth = found.x.reshape(-1) * read
    assert (solution.x.reshape(-1) - truth).norm() <= 1e-5 * found.x.norm()
