"""Layers to count: the reference vectors, random draws, and hypothesis strategies."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from brute_force import DenseConvolution
from hypothesis import strategies as st

from leakaudit.counting.geometry import Axis, ConvolutionGeometry

REFERENCE: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "layers.json").read_text(encoding="utf-8")
)["layers"]

MOST_UNKNOWNS = 400
MOST_EQUATIONS = 900


def geometry(layer: DenseConvolution, **change: Any) -> ConvolutionGeometry:
    """The same layer as counting sees it."""
    spatial = zip(
        layer.sizes, layer.kernel, layer.stride, layer.padding, layer.dilation, strict=True
    )
    axes = [Axis(size, k, s, begin, end, d) for size, k, s, (begin, end), d in spatial]
    return ConvolutionGeometry(
        channels=layer.channels,
        filters=layer.filters,
        axes=(Axis(layer.batch), *axes),
        groups=layer.groups,
        **change,
    )


def convolution(
    channels: int,
    sizes: Sequence[int],
    filters: int,
    kernel: Sequence[int],
    stride: Sequence[int] | None = None,
    padding: Sequence[int | tuple[int, int]] | None = None,
    dilation: Sequence[int] | None = None,
    groups: int = 1,
    batch: int = 1,
) -> DenseConvolution:
    """A convolution with the usual defaults; one number of padding means both ends."""
    ones = (1,) * len(sizes)
    pads = [(p, p) if isinstance(p, int) else p for p in padding or [0] * len(sizes)]
    return DenseConvolution(
        channels,
        tuple(sizes),
        filters,
        tuple(kernel),
        tuple(stride or ones),
        tuple(pads),
        tuple(dilation or ones),
        groups,
        batch,
    )


def from_reference(entry: dict[str, Any]) -> DenseConvolution:
    """One entry of the reference vectors."""
    return convolution(
        entry["in_channels"],
        (entry["height"], entry["width"]),
        entry["filters"],
        entry["kernel"],
        entry["stride"],
        entry["padding"],
        entry["dilation"],
        entry["groups"],
    )


def fits(layer: DenseConvolution) -> bool:
    """Whether the layer has outputs, and its dense matrix is small."""
    axes = geometry(layer).axes
    if min(axis.positions for axis in axes) < 1:
        return False
    outputs = layer.filters * prod(axis.positions for axis in axes)
    equations = outputs + prod(layer.weight_shape)
    return prod(layer.input_shape) <= MOST_UNKNOWNS and equations <= MOST_EQUATIONS


def random_layer(draw: random.Random) -> DenseConvolution:
    """A 2-d layer drawn as the reference vectors were: padding smaller than the kernel's extent."""
    while True:
        groups = draw.choice((1, 1, 1, 2, 3))
        kernel = [draw.randint(1, 4) for _ in range(2)]
        dilation = [draw.randint(1, 3), draw.randint(1, 2)]
        layer = convolution(
            channels=groups * draw.randint(1, 4),
            sizes=[draw.randint(3, 11) for _ in range(2)],
            filters=groups * draw.choice((1, 2, 3, 4, 6, 8, 12)),
            kernel=kernel,
            stride=[draw.randint(1, 3) for _ in range(2)],
            padding=[
                draw.randint(0, min(2, (k - 1) * d)) for k, d in zip(kernel, dilation, strict=True)
            ],
            dilation=dilation,
            groups=groups,
        )
        if fits(layer):
            return layer


@st.composite
def convolutions(draw: st.DrawFn, batch: int = 3) -> DenseConvolution:
    """Any small convolution: 1 to 3 axes, uneven padding of any width, gaps, groups, a batch."""
    d = draw(st.integers(1, 3))
    largest = {1: 24, 2: 8, 3: 4}[d]

    def per_axis(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=d, max_size=d))

    groups = draw(st.integers(1, 3))
    layer = convolution(
        channels=groups * draw(st.integers(1, 3)),
        sizes=per_axis(1, largest),
        filters=groups * draw(st.integers(1, 8)),
        kernel=per_axis(1, 4 if d < 3 else 3),
        stride=per_axis(1, 4),
        padding=list(zip(per_axis(0, 3), per_axis(0, 3), strict=True)),
        dilation=per_axis(1, 3),
        groups=groups,
        batch=draw(st.integers(1, batch)),
    )
    return draw(st.just(layer).filter(fits))


@st.composite
def patch_embeddings(draw: st.DrawFn) -> DenseConvolution:
    """Patches that do not overlap: kernel equals stride, no dilation, no padding."""
    d = draw(st.integers(1, 3))
    patch = draw(st.lists(st.integers(1, 4), min_size=d, max_size=d))
    # The last patch may be cut off: sizes need not be multiples of the patch.
    sizes = [draw(st.integers(p, {1: 5, 2: 3, 3: 2}[d] * p + p - 1)) for p in patch]
    layer = convolution(
        channels=draw(st.integers(1, 4)),
        sizes=sizes,
        filters=draw(st.integers(1, 12)),
        kernel=patch,
        stride=patch,
        batch=draw(st.integers(1, 2)),
    )
    return draw(st.just(layer).filter(fits))
