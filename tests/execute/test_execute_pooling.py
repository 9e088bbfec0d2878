"""Pooling with every geometry, against definitions written out window by window."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from hypothesis import assume, given, settings, strategies as st
from one_node import execute_one, onnxruntime_reference
from operator_case import rand

from leakaudit.execute import NotExecutable
from leakaudit.operators import AdaptiveAveragePool, AveragePool, LpPool, MaxPool

SUITE = settings(max_examples=40, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Geometry:
    """Per spatial axis: size, kernel, stride, padding before and after, dilation."""

    axes: tuple[tuple[int, int, int, int, int, int], ...]
    ceil: bool

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(axis[0] for axis in self.axes)

    @property
    def fields(self) -> tuple[tuple[int, ...], ...]:
        _, kernel, stride, begin, end, dilation = zip(*self.axes, strict=True)
        return kernel, stride, begin, end, dilation

    def positions(self, *, drop: bool = True) -> tuple[int, ...]:
        """How many windows: PyTorch's rule, or without dropping what starts in the end padding."""
        counts = []
        for size, kernel, stride, begin, end, dilation in self.axes:
            room = size + begin + end - dilation * (kernel - 1) - 1
            count = (math.ceil(room / stride) if self.ceil else room // stride) + 1
            if drop and self.ceil and (count - 1) * stride >= size + begin:
                count -= 1
            counts.append(count)
        return tuple(counts)

    @property
    def every_window_reads(self) -> bool:
        """No window lies in the padding alone."""
        return all(
            any(0 <= p * stride - begin + t * dilation < size for t in range(kernel))
            for (size, kernel, stride, begin, _, dilation), count in zip(
                self.axes, self.positions(), strict=True
            )
            for p in range(count)
        )

    @property
    def attributes(self) -> dict[str, Any]:
        """In ONNX's words."""
        kernel, stride, begin, end, dilation = self.fields
        return {
            "kernel_shape": kernel,
            "strides": stride,
            "pads": (*begin, *end),
            "dilations": dilation,
            "ceil_mode": int(self.ceil),
        }


@st.composite
def geometries(draw: st.DrawFn, *, symmetric: bool = False, dilated: bool = True) -> Geometry:
    """1 to 3 axes; padding below the kernel, as ONNX and PyTorch ask."""
    axes = []
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 4))
        dilation = draw(st.integers(1, 2)) if dilated else 1
        begin = draw(st.integers(0, kernel // 2))
        end = begin if symmetric else draw(st.integers(0, kernel // 2))
        least = max(1, dilation * (kernel - 1) + 1 - begin - end)
        axes.append((draw(st.integers(least, least + 5)), kernel, stride, begin, end, dilation))
    return Geometry(tuple(axes), draw(st.booleans()))


def by_definition(kind: str, g: Geometry, x: Any, *, include_padding: bool = True) -> Any:
    """One window after the other, one tap after the other."""
    positions = g.positions()
    y = torch.empty(*x.shape[:2], *positions, dtype=x.dtype)
    for position in itertools.product(*map(range, positions)):
        taps, count = [], 0
        for tap in itertools.product(*(range(axis[1]) for axis in g.axes)):
            index = [
                p * stride - begin + t * dilation
                for p, t, (_, _, stride, begin, _, dilation) in zip(
                    position, tap, g.axes, strict=True
                )
            ]
            sides = list(zip(index, g.axes, strict=True))
            inside = all(0 <= i < axis[0] for i, axis in sides)
            if inside:
                taps.append(x[(..., *index)])
            if inside or (include_padding and all(-a[3] <= i < a[0] + a[4] for i, a in sides)):
                count += 1
        window = torch.stack(taps) if taps else torch.zeros(1, *x.shape[:2], dtype=x.dtype)
        if kind == "max":
            result = window.amax(0) if taps else torch.full_like(window[0], -math.inf)
        elif kind == "average":
            result = window.sum(0) / max(count, 1)
        else:
            result = (window.abs() ** 3).sum(0) ** (1 / 3)
        y[(..., *position)] = result
    return y


def image(g: Geometry, seed: int = 0) -> Any:
    return rand(2, 2, *g.sizes, seed=seed)


@SUITE
@given(geometries())
def test_max_pool_by_definition(g: Geometry) -> None:
    x = image(g)
    shape = (2, 2, *g.positions())
    (y,) = execute_one(MaxPool(*g.fields, ceil=g.ceil), [x], [shape])
    torch.testing.assert_close(y, by_definition("max", g, x))


@SUITE
@given(geometries(), st.booleans())
def test_average_pool_by_definition(g: Geometry, include: bool) -> None:
    x = image(g)
    op = AveragePool(*g.fields, include_padding=include, ceil=g.ceil)
    (y,) = execute_one(op, [x], [(2, 2, *g.positions())])
    expected = by_definition("average", g, x, include_padding=include)
    torch.testing.assert_close(y, expected)


@SUITE
@given(geometries())
def test_lp_pool_by_definition(g: Geometry) -> None:
    x = image(g)
    op = LpPool(*g.fields, p=3.0, ceil=g.ceil)
    (y,) = execute_one(op, [x], [(2, 2, *g.positions())])
    torch.testing.assert_close(y, by_definition("lp", g, x))


@SUITE
@given(geometries(symmetric=True))
def test_max_pool_and_its_gradient_are_those_of_torch(g: Geometry) -> None:
    # torch's backward pass writes outside the input where a dilated window reads padding alone.
    assume(g.every_window_reads)
    # Few distinct values: ties must send their gradient where torch sends it.
    x = image(g).round().requires_grad_(True)
    kernel, stride, padding, _, dilation = g.fields
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[len(kernel)]
    expected = pool(x, kernel, stride, padding, dilation, g.ceil)
    (y,) = execute_one(MaxPool(*g.fields, ceil=g.ceil), [x], [expected.shape])
    torch.testing.assert_close(y, expected)
    weight = rand(*y.shape, seed=1)
    (ours,) = torch.autograd.grad((y * weight).sum(), x)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), x)
    torch.testing.assert_close(ours, theirs)


@SUITE
@given(geometries(symmetric=True, dilated=False), st.booleans())
def test_average_pool_and_its_gradient_are_those_of_torch(g: Geometry, include: bool) -> None:
    # torch refuses volumes smaller than the kernel, padded or not.
    assume(all(size >= kernel for size, kernel, *_ in g.axes))
    x = image(g).requires_grad_(True)
    kernel, stride, padding, _, _ = g.fields
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(kernel)]
    expected = pool(x, kernel, stride, padding, g.ceil, include)
    op = AveragePool(*g.fields, include_padding=include, ceil=g.ceil)
    (y,) = execute_one(op, [x], [expected.shape])
    torch.testing.assert_close(y, expected)
    weight = rand(*y.shape, seed=1)
    (ours,) = torch.autograd.grad((y * weight).sum(), x)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), x)
    torch.testing.assert_close(ours, theirs)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(geometries(dilated=False))
def test_max_pool_is_that_of_onnxruntime(g: Geometry) -> None:
    x = image(g).float()
    (expected,) = onnxruntime_reference("MaxPool", [x], **g.attributes)
    (y,) = execute_one(MaxPool(*g.fields, ceil=g.ceil), [x], [expected.shape])
    torch.testing.assert_close(y, expected)


def test_the_stated_shape_decides_whether_a_late_window_counts() -> None:
    # 7 elements and one of padding: with stride 4 the third window would start behind them.
    g = Geometry(((7, 2, 4, 0, 1, 1),), ceil=True)
    x = rand(1, 1, 7)
    assert g.positions() == (2,)
    assert g.positions(drop=False) == (3,)
    for count in (2, 3):
        (y,) = execute_one(MaxPool(*g.fields, ceil=True), [x], [(1, 1, count)])
        assert y[0, 0, :2].tolist() == [float(x[0, 0, :2].max()), float(x[0, 0, 4:6].max())]
        (mean,) = execute_one(AveragePool(*g.fields, ceil=True), [x], [(1, 1, count)])
        assert mean[0, 0, 1] == x[0, 0, 4:6].mean()
        assert bool(mean.isfinite().all())


def test_integers_pool_too() -> None:
    x = torch.tensor([[[-5, -7, -2, -9]]])
    (y,) = execute_one(MaxPool((2,), (2,), (1,), (1,), (1,)), [x], [(1, 1, 3)])
    assert y.dtype == torch.int64
    assert y.tolist() == [[[-5, -2, -9]]]


def test_lp_pool_of_zeros_has_a_finite_gradient() -> None:
    x = torch.zeros(1, 1, 4, dtype=torch.float64, requires_grad=True)
    (y,) = execute_one(LpPool((2,), (2,), (0,), (0,), (1,), 2.0), [x], [(1, 1, 2)])
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.tolist() == [[[0.0] * 4]]


@pytest.mark.parametrize("sizes", [(7,), (5, 4), (3, 4, 5)])
@pytest.mark.parametrize("wanted", [1, 3])
def test_adaptive_average_pool_of_any_rank(sizes: tuple[int, ...], wanted: int) -> None:
    x = rand(2, 3, *sizes)
    expected = x
    for axis, size in enumerate(sizes):
        bounds = [(i * size // wanted, -(-(i + 1) * size // wanted)) for i in range(wanted)]
        parts = [expected.narrow(axis + 2, first, last - first) for first, last in bounds]
        expected = torch.stack([part.mean(axis + 2) for part in parts], axis + 2)
    (y,) = execute_one(AdaptiveAveragePool(), [x], [expected.shape])
    torch.testing.assert_close(y, expected)


def test_adaptive_average_pool_without_spatial_axes_is_refused() -> None:
    with pytest.raises(NotExecutable, match="layer"):
        execute_one(AdaptiveAveragePool(), [rand(2, 3)], [(2, 3)])
