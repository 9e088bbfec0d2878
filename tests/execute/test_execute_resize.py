"""Interpolation against torch's own kernels, against ONNX's formulas, and as a linear map."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from one_node import execute_one, onnx_reference
from operator_case import rand, whole

from leakaudit.execute import NotExecutable
from leakaudit.operators import Resize

SUITE = settings(max_examples=60, deadline=None, derandomize=True)
SIZES = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 12)), min_size=1, max_size=3)
TORCH_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@SUITE
@given(SIZES, st.booleans())
def test_linear_is_that_of_torch(sizes: list[tuple[int, int]], corners: bool) -> None:
    old, new = zip(*sizes, strict=True)
    x = rand(2, 3, *old)
    mode = TORCH_MODES[len(sizes)]
    expected = F.interpolate(x, size=list(new), mode=mode, align_corners=corners)
    op = Resize("linear", "align_corners" if corners else "half_pixel")
    (y,) = execute_one(op, [x], [expected.shape])
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)


@SUITE
@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(1, 12)), min_size=2, max_size=2),
    st.booleans(),
)
def test_cubic_is_that_of_torch(sizes: list[tuple[int, int]], corners: bool) -> None:
    old, new = zip(*sizes, strict=True)
    x = rand(2, 3, *old)
    expected = F.interpolate(x, size=list(new), mode="bicubic", align_corners=corners)
    op = Resize("cubic", "align_corners" if corners else "half_pixel")
    (y,) = execute_one(op, [x], [expected.shape])
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)


@SUITE
@given(SIZES)
def test_nearest_is_that_of_torch(sizes: list[tuple[int, int]]) -> None:
    old, new = zip(*sizes, strict=True)
    x = rand(2, 3, *old)
    expected = F.interpolate(x, size=list(new), mode="nearest")
    (y,) = execute_one(Resize("nearest", "asymmetric", "floor"), [x], [expected.shape])
    assert torch.equal(y, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nearest_does_not_depend_on_the_precision(dtype: Any) -> None:
    # In single precision torch's own kernel takes element 0 at index 41 of 82.
    x = torch.tensor([[[1.0, 2.0]]], dtype=dtype)
    (y,) = execute_one(Resize("nearest", "asymmetric", "floor"), [x], [(1, 1, 82)])
    assert y.flatten().tolist() == [1.0] * 41 + [2.0] * 41


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("factor", [2.0, 0.5, 1.7])
def test_a_stated_scale_is_used_in_place_of_the_ratio_of_sizes(mode: str, factor: float) -> None:
    # 1.7 · 5 = 8.5: the output has 8 elements, and its coordinates still go by 1.7.
    x = rand(1, 2, 5, 6)
    expected = F.interpolate(x, scale_factor=factor, mode=mode)
    op = {
        "nearest": Resize("nearest", "asymmetric", "floor", (1.0, 1.0, factor, factor)),
        "bilinear": Resize("linear", "half_pixel", scales=(1.0, 1.0, factor, factor)),
        "bicubic": Resize("cubic", "half_pixel", scales=(1.0, 1.0, factor, factor)),
    }[mode]
    (y,) = execute_one(op, [x], [expected.shape])
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)


@SUITE
@given(
    st.tuples(st.integers(1, 7), st.integers(2, 12)),
    st.sampled_from(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]),
    st.sampled_from(["nearest", "linear", "cubic"]),
    st.sampled_from(["floor", "round_prefer_floor"]),
)
def test_every_mode_is_that_of_onnx(
    sizes: tuple[int, int], coordinates: str, mode: str, nearest: str
) -> None:
    # Not to a single element: there ONNX's evaluator contradicts ONNX's text.
    size, resized = sizes
    x = rand(2, 1, size)
    arguments = [x, None, None, whole(2, 1, resized)]
    (expected,) = onnx_reference(
        "Resize",
        arguments,
        mode=mode,
        coordinate_transformation_mode=coordinates,
        nearest_mode=nearest,
        cubic_coeff_a=-0.5,
    )
    op = Resize(mode, coordinates, nearest, cubic_coefficient=-0.5)
    (y,) = execute_one(op, [x], [expected.shape])
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_to_a_single_element_pytorch_half_pixel_takes_the_first(mode: str) -> None:
    # ONNX: x_original = length_resized > 1 ? (x_resized + 0.5) / scale - 0.5 : 0.
    x = rand(1, 1, 6)
    (y,) = execute_one(Resize(mode, "pytorch_half_pixel"), [x], [(1, 1, 1)])
    torch.testing.assert_close(y, x[..., :1])


def test_nearest_moves_integers() -> None:
    x = torch.tensor([[[5, -7, 9]]])
    (y,) = execute_one(Resize("nearest", "asymmetric"), [x], [(1, 1, 6)])
    assert (y.dtype, y.tolist()) == (torch.int64, [[[5, 5, -7, -7, 9, 9]]])


@pytest.mark.parametrize(
    "op",
    [
        Resize("area", "half_pixel"),
        Resize("linear", "tf_crop_and_resize"),
        Resize("nearest", "asymmetric", "stochastic"),
    ],
)
def test_what_is_not_known_is_refused_with_the_layer_s_name(op: Resize) -> None:
    with pytest.raises(NotExecutable, match="layer"):
        execute_one(op, [rand(1, 1, 3)], [(1, 1, 5)])
