"""Dense matrices of one convolution's equations, got by differentiating torch's own convolution.

Nothing here uses leakaudit's arithmetic: asymmetric padding is an explicit `F.pad`, and every
matrix is a Jacobian. Rows and columns are in row-major order of dl/dw (F, n, K..), of o (B, F, O..)
and of x (B, N, H..).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from leakaudit.counting.geometry import Axis, ConvolutionGeometry
from leakaudit.equations.convolution import Convolution
from leakaudit.operators import Conv

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Case:
    """One convolution at fixed shapes."""

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    group_channels: int = 1
    group_filters: int = 1
    batch: int = 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.batch, self.groups * self.group_channels, *self.sizes)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.groups * self.group_filters, self.group_channels, *self.kernel)

    @property
    def unknowns(self) -> int:
        return prod(self.input_shape)

    @property
    def convolution(self) -> Convolution:
        op = Conv(self.kernel, self.stride, self.begin, self.end, self.dilation, self.groups)
        return Convolution(op, self.input_shape, self.weight_shape)

    @property
    def geometry(self) -> ConvolutionGeometry:
        axes = [
            Axis(*sizes)
            for sizes in zip(
                self.sizes,
                self.kernel,
                self.stride,
                self.begin,
                self.end,
                self.dilation,
                strict=True,
            )
        ]
        return ConvolutionGeometry(
            self.input_shape[1], self.weight_shape[0], (Axis(self.batch), *axes), self.groups
        )

    def output(self, x: Tensor, w: Tensor) -> Tensor:
        """o = w * x by torch's convolution of the explicitly padded input."""
        pads = [
            p for ends in zip(reversed(self.begin), reversed(self.end), strict=True) for p in ends
        ]
        return CONVOLUTIONS[len(self.sizes)](
            F.pad(x, pads), w, stride=self.stride, dilation=self.dilation, groups=self.groups
        )

    def weight_gradient(self, x: Tensor, G: Tensor) -> Tensor:
        """dl/dw by autograd, for dl/do = G."""
        w = torch.zeros(self.weight_shape, dtype=x.dtype, requires_grad=True)
        return torch.autograd.grad(self.output(x, w), w, G)[0]

    def gradient_matrix(self, G: Tensor) -> Tensor:
        """(F·n·k, |X|): dl/dw as a function of x."""
        zeros = torch.zeros(self.weight_shape, dtype=G.dtype)

        def observed(x: Tensor) -> Tensor:
            return torch.func.grad(lambda w: (self.output(x, w) * G).sum())(zeros)

        J = torch.func.jacrev(observed)(torch.zeros(self.input_shape, dtype=G.dtype))
        return J.reshape(prod(self.weight_shape), self.unknowns)

    def weight_matrix(self, w: Tensor) -> Tensor:
        """(B·F·L, |X|): o as a function of x."""
        J = torch.func.jacrev(lambda x: self.output(x, w))(
            torch.zeros(self.input_shape, dtype=w.dtype)
        )
        return J.reshape(-1, self.unknowns)

    def draw(self, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random x, w and G, float64."""
        generator = torch.Generator().manual_seed(seed)

        def normal(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        x, w = normal(self.input_shape), normal(self.weight_shape)
        return x, w, normal(tuple(self.output(x, w).shape))


def layer(
    sizes: tuple[int, ...],
    kernel: int | tuple[int, ...],
    stride: int | tuple[int, ...] = 1,
    padding: int = 0,
    dilation: int = 1,
    **rest: int,
) -> Case:
    """A case with the same value along every axis where one number is given."""
    d = len(sizes)

    def each(value: int | tuple[int, ...]) -> tuple[int, ...]:
        return value if isinstance(value, tuple) else (value,) * d

    pad = each(padding)
    return Case(sizes, each(kernel), each(stride), pad, pad, each(dilation), **rest)


@st.composite
def cases(draw: st.DrawFn, largest: dict[int, int] | None = None) -> Case:
    """Convolutions of every kind: 1-3 d, odd and non-square, asymmetric padding, ragged strides."""
    d = draw(st.integers(1, 3))
    extent = (largest or {1: 9, 2: 6, 3: 4})[d]
    axes = []
    for _ in range(d):
        kernel = draw(st.integers(1, 3 if d > 1 else 4))
        dilation = draw(st.integers(1, 2))
        stride = draw(st.integers(1, 4 if d == 1 else 3))
        begin, end = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        span = dilation * (kernel - 1) + 1
        smallest = max(1, span - begin - end)
        size = draw(st.integers(smallest, max(smallest, extent)))
        axes.append((size, kernel, stride, begin, end, dilation))
    sizes, kernels, strides, begins, ends, dilations = zip(*axes, strict=True)
    return Case(
        sizes,
        kernels,
        strides,
        begins,
        ends,
        dilations,
        groups=draw(st.integers(1, 3 if d < 3 else 2)),
        group_channels=draw(st.integers(1, 2)),
        group_filters=draw(st.integers(1, 3)),
        batch=draw(st.integers(1, 2)),
    )


def scaled_stack(
    case: Case,
    w: Tensor,
    G: Tensor | None,
    mask: Tensor | None,
    gradient_scale: Tensor | None = None,
    weight_scale: Tensor | None = None,
) -> Tensor:
    """The stacked matrix of the gradient constraints (if G) and the weight constraints (if mask).

    Rows of unknown outputs are left out. The scales (F,) multiply the rows of each filter.
    """
    parts = []
    if G is not None:
        A = case.gradient_matrix(G)
        if gradient_scale is not None:
            A = A * gradient_scale.repeat_interleave(A.shape[0] // len(gradient_scale))[:, None]
        parts.append(A)
    if mask is not None:
        B = case.weight_matrix(w)
        if weight_scale is not None:
            shape = (1, -1, *[1] * (mask.dim() - 2))
            B = B * weight_scale.view(shape).expand(mask.shape).reshape(-1)[:, None]
        parts.append(B[mask.reshape(-1) > 0])
    return torch.cat(parts)
