"""Transposed convolution over its whole geometry: the adjoint of a convolution, and torch's own."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from one_node import execute_one
from operator_case import rand

from leakaudit.execute import NotExecutable
from leakaudit.operators import Conv, ConvTranspose, Embedding, Linear

SUITE = settings(max_examples=60, deadline=None, derandomize=True)
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True)
class Axis:
    """One spatial axis; `size` is that of the transposed convolution's output."""

    size: int
    kernel: int
    stride: int
    begin: int
    end: int
    dilation: int

    @property
    def positions(self) -> int:
        reach = self.dilation * (self.kernel - 1) + 1
        return (self.size + self.begin + self.end - reach) // self.stride + 1

    @property
    def unread(self) -> int:
        """What the convolution reads no more at the end: it comes back as appended zeros."""
        reach = self.dilation * (self.kernel - 1) + 1
        return self.size + self.begin + self.end - (self.positions - 1) * self.stride - reach


@st.composite
def axes(draw: st.DrawFn) -> tuple[Axis, ...]:
    found = []
    for _ in range(draw(st.integers(1, 3))):
        kernel, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        begin, end = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        least = max(1, dilation * (kernel - 1) + 1 - begin - end)
        size = draw(st.integers(least, least + 4))
        found.append(Axis(size, kernel, draw(st.integers(1, 4)), begin, end, dilation))
    return tuple(found)


@SUITE
@given(axes(), st.integers(1, 2), st.booleans())
def test_transposed_convolution_is_the_adjoint_of_a_convolution(
    geometry: tuple[Axis, ...], groups: int, bias: bool
) -> None:
    # The adjoint by differentiating torch's convolution of the explicitly padded input.
    image = rand(2, 3 * groups, *(a.size for a in geometry)).requires_grad_(True)
    weight = rand(2 * groups, 3, *(a.kernel for a in geometry), seed=1)
    pads = [pad for a in reversed(geometry) for pad in (a.begin, a.end)]
    stride, dilation = tuple(a.stride for a in geometry), tuple(a.dilation for a in geometry)
    o = CONVOLUTIONS[len(geometry)](F.pad(image, pads), weight, None, stride, 0, dilation, groups)
    g = rand(*o.shape, seed=2)
    (expected,) = torch.autograd.grad(o, image, g)
    parameters = {"weight": weight}
    if bias:
        parameters["bias"] = rand(3 * groups, seed=3)
        expected = expected + parameters["bias"].view(-1, *[1] * len(geometry))
    op = ConvTranspose(
        tuple(a.kernel for a in geometry),
        stride,
        tuple(a.begin for a in geometry),
        tuple(a.end - a.unread for a in geometry),
        dilation,
        groups,
    )
    (y,) = execute_one(op, [g], [expected.shape], parameters)
    torch.testing.assert_close(y, expected)


@SUITE
@given(axes(), st.integers(1, 2), st.data())
def test_transposed_convolution_is_that_of_torch(
    geometry: tuple[Axis, ...], groups: int, data: st.DataObject
) -> None:
    x = rand(2, 2 * groups, *(a.size for a in geometry))
    weight = rand(2 * groups, 3, *(a.kernel for a in geometry), seed=1)
    bias = rand(3 * groups, seed=2)
    # The full output must not be cut away: torch refuses that too.
    begin = tuple(min(a.begin, (a.dilation * (a.kernel - 1)) // 2) for a in geometry)
    extra = tuple(data.draw(st.integers(0, max(a.stride, a.dilation) - 1)) for a in geometry)
    stride, dilation = tuple(a.stride for a in geometry), tuple(a.dilation for a in geometry)
    expected = TRANSPOSED[len(geometry)](x, weight, bias, stride, begin, extra, groups, dilation)
    end = tuple(b - e for b, e in zip(begin, extra, strict=True))
    op = ConvTranspose(tuple(a.kernel for a in geometry), stride, begin, end, dilation, groups)
    (y,) = execute_one(op, [x], [expected.shape], {"weight": weight, "bias": bias})
    torch.testing.assert_close(y, expected)


@SUITE
@given(axes(), st.integers(1, 2))
def test_convolution_pads_each_side_on_its_own(geometry: tuple[Axis, ...], groups: int) -> None:
    x = rand(2, 3 * groups, *(a.size for a in geometry))
    weight = rand(2 * groups, 3, *(a.kernel for a in geometry), seed=1)
    bias = rand(2 * groups, seed=2)
    pads = [pad for a in reversed(geometry) for pad in (a.begin, a.end)]
    stride, dilation = tuple(a.stride for a in geometry), tuple(a.dilation for a in geometry)
    expected = CONVOLUTIONS[len(geometry)](
        F.pad(x, pads), weight, bias, stride, 0, dilation, groups
    )
    op = Conv(
        tuple(a.kernel for a in geometry),
        stride,
        tuple(a.begin for a in geometry),
        tuple(a.end for a in geometry),
        dilation,
        groups,
    )
    (y,) = execute_one(op, [x], [expected.shape], {"weight": weight, "bias": bias})
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("leading", [(), (4,), (2, 3)])
def test_dense_layer_on_any_leading_axes(leading: tuple[int, ...]) -> None:
    weight, bias, x = rand(3, 5), rand(3, seed=1), rand(*leading, 5, seed=2)
    expected = F.linear(x, weight, bias)
    for op, stored in [
        (Linear(5, 3), weight),
        (Linear(5, 3, transposed=True), weight.T.contiguous()),
    ]:
        (y,) = execute_one(op, [x], [(*leading, 3)], {"weight": stored, "bias": bias})
        torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("index", [7, -8])
def test_an_index_outside_the_table_is_refused_with_the_layer_s_name(index: int) -> None:
    with pytest.raises(NotExecutable, match=r"layer .*table of 7 rows"):
        execute_one(Embedding(), [torch.tensor([0, index])], [(2, 4)], {"weight": rand(7, 4)})


def test_a_constant_index_may_be_a_parameter() -> None:
    table = rand(7, 4)
    index = torch.tensor([6, 0, 6], dtype=torch.int32)
    (y,) = execute_one(Embedding(), [index], [(3, 4)], {"weight": table}, stored=(0,))
    assert y.tolist() == [table[6].tolist(), table[0].tolist(), table[6].tolist()]
