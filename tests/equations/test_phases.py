"""The per-phase matrices against the dense matrices, entry by entry."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from dense_reference import Case, cases, layer, scaled_stack
from hypothesis import example, given, settings, strategies as st

from leakaudit.equations.linear_maps import row_scale
from leakaudit.equations.phases import phase_systems
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.normal import normal_matrix
from leakaudit.solvers.normal_operator import NormalOperator

SUITE = settings(max_examples=50, deadline=None, derandomize=True)
SEEDS = st.integers(0, 1000)


@SUITE
@given(case=cases(), seed=SEEDS)
@example(case=layer((7, 5), 2, stride=3, group_channels=2, group_filters=2), seed=0)
@example(case=layer((6,), 3, stride=2, dilation=2, padding=2, groups=2), seed=0)
@example(case=layer((4, 4), 2, stride=2, batch=2, group_filters=3), seed=0)
def test_phases_assemble_to_the_gradient_constraints_of_every_channel(
    case: Case, seed: int
) -> None:
    _, _, G = case.draw(seed)
    f, n = case.group_filters, case.group_channels
    filters, channels = case.groups * f, case.groups * n
    batch_pixels = case.unknowns // channels
    k = torch.tensor(case.kernel).prod().item()
    # (F, n, k, N, B·H..)
    dense = (
        case.gradient_matrix(G)
        .reshape(filters, n, k, case.batch, channels, -1)
        .transpose(3, 4)
        .reshape(filters, n, k, channels, batch_pixels)
    )
    systems = list(phase_systems(case.geometry.axes))
    expected = torch.zeros_like(dense)
    for group in range(case.groups):
        part = G[:, group * f : (group + 1) * f].transpose(0, 1)
        T = torch.zeros(f, k, batch_pixels, dtype=torch.float64)
        for system in systems:
            block = system.matrix(part).reshape(f, len(system.taps), len(system.pixels))
            T[:, system.taps[:, None], system.pixels[None, :]] = block
        for channel in range(n):
            expected[group * f : (group + 1) * f, channel, :, group * n + channel] = T
    torch.testing.assert_close(expected, dense, rtol=0, atol=0)


@SUITE
@given(case=cases())
def test_phases_share_no_pixel_and_cover_all_that_are_read(case: Case) -> None:
    systems = list(phase_systems(case.geometry.axes))
    pixels = [p for system in systems for p in system.pixels.tolist()]
    assert len(pixels) == len(set(pixels))
    taps = [t for system in systems for t in system.taps.tolist()]
    assert len(taps) == len(set(taps))
    ones = torch.ones(case.weight_shape, dtype=torch.float64)
    reads = case.weight_matrix(ones).abs().sum(0).reshape(case.input_shape)[:, 0] > 0
    assert sorted(pixels) == reads.reshape(-1).nonzero().flatten().tolist()


@SUITE
@given(case=cases(), seed=SEEDS)
def test_phases_of_equal_signature_have_equal_matrices(case: Case, seed: int) -> None:
    _, _, G = case.draw(seed)
    part = G[:, : case.group_filters].transpose(0, 1)
    seen = {}
    for system in phase_systems(case.geometry.axes):
        T = system.matrix(part)
        assert torch.equal(seen.setdefault(system.signature, T), T)


def test_all_phases_of_a_patch_embedding_share_one_matrix() -> None:
    case = layer((8, 12), 4, stride=4, group_channels=3, group_filters=5)
    systems = list(phase_systems(case.geometry.axes))
    assert len(systems) == 16
    assert len({system.signature for system in systems}) == 1


def test_ragged_borders_keep_phases_apart_that_read_a_different_number_of_pixels() -> None:
    _, _, G = (case := layer((5,), 2, stride=2, padding=1)).draw(0)
    assert len({s.signature for s in phase_systems(case.geometry.axes)}) == 2
    assert G.shape == (1, 1, 3)


@SUITE
@given(case=cases(), seed=SEEDS, which=st.sampled_from(["gradient", "weight", "both"]))
@example(case=layer((5, 3), 3, stride=2, padding=1, groups=2, batch=2), seed=1, which="both")
@example(case=layer((7,), 2, stride=3), seed=1, which="both")
def test_normal_matrix_is_that_of_the_scaled_stack(case: Case, seed: int, which: str) -> None:
    x, w, G = case.draw(seed)
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(G.shape, generator=generator) < 0.7).double()
    gradient, weight = which != "weight", which != "gradient"
    system = LayerSystem(
        case.convolution,
        case.geometry,
        w,
        case.weight_gradient(x, G) if gradient else None,
        G if gradient else None,
        G if weight else None,
        mask if weight else None,
        precision=2.2e-16,
    )
    H = normal_matrix(system, NormalOperator(system))
    S = scaled_stack(
        case,
        w,
        G if gradient else None,
        mask if weight else None,
        row_scale(G.transpose(0, 1)),
        row_scale(w),
    )
    torch.testing.assert_close(H, S.T @ S)


def test_normal_matrix_does_not_depend_on_how_patches_are_batched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from leakaudit.solvers import normal

    case = layer((6, 5), 3, padding=1, group_channels=2, group_filters=2, batch=2)
    _, w, G = case.draw(3)
    system = LayerSystem(
        case.convolution, case.geometry, w, None, None, G, torch.ones_like(G), precision=2.2e-16
    )
    operator = NormalOperator(system)
    whole = normal_matrix(system, operator)
    monkeypatch.setattr(normal, "_CHUNK", 1)
    torch.testing.assert_close(normal_matrix(system, operator), whole)
