"""What averages, selections and narrow layers leave of a gradient's rank, however they are written.

The ranks that are expected here are those that differentiation gives for random weights.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from build import Builder

from leakaudit.leakpath.path import LeakPath, find_leak_path
from leakaudit.operators import (
    AdaptiveAveragePool,
    Add,
    Einsum,
    Gather,
    LayerNorm,
    Mul,
    Reduce,
    Relu,
    Reshape,
    Slice,
    Softmax,
    Transpose,
)


def pool(b: Builder) -> None:
    b.node("pool", AdaptiveAveragePool(), (1, 16, 1, 1))
    b.flatten()


def mean(b: Builder) -> None:
    b.node("mean", Reduce("mean", (2, 3), False), (1, 16))


def mean_of_tokens(b: Builder) -> None:
    b.node("flat", Reshape(), (1, 16, 16))
    b.node("tokens", Transpose((0, 2, 1)), (1, 16, 16))
    b.node("mean", Reduce("mean", (1,), False), (1, 16))


def mean_twice(b: Builder) -> None:
    b.node("mean1", Reduce("mean", (3,), False), (1, 16, 4))
    b.node("mean2", Reduce("sum", (2,), True), (1, 16, 1))
    b.flatten()


def channel_shuffle(b: Builder) -> None:
    b.node("split", Reshape(), (1, 4, 4, 4, 4))
    b.node("swap", Transpose((0, 2, 1, 3, 4)), (1, 4, 4, 4, 4))
    b.node("join", Reshape(), (1, 16, 4, 4))
    mean(b)


def scaled(b: Builder) -> None:
    b.parameter("gain", (16, 1, 1))
    b.node("gained", Mul(), (1, 16, 4, 4), (b.newest, "gain"))
    mean(b)


def einsum(b: Builder) -> None:
    b.node("sum", Einsum("bchw->bc"), (1, 16))


def corner(b: Builder) -> None:
    b.node("corner", Slice((0, 0, 0, 0), (1, 16, 1, 1), (1, 1, 1, 1)), (1, 16, 1, 1))
    b.flatten()


def pointwise(b: Builder) -> None:
    b.conv("mix", 16, 1)
    mean(b)


@pytest.mark.parametrize(
    "head",
    [pool, mean, mean_of_tokens, mean_twice, channel_shuffle, scaled, einsum, corner, pointwise],
)
def test_one_gradient_for_all_positions_has_rank_one(head: Callable[[Builder], None]) -> None:
    """Patches of 3 x 4 x 4 at 16 positions: of the 768 unknowns rank one fixes 48."""
    b = Builder(1, 3, 16, 16)
    b.conv("patches", 16, 4, stride=4)
    head(b)
    b.linear("fc1", 10)
    found = find_leak_path(b.graph(), "cross-entropy")
    assert not found.report.reaches_input
    (reason,) = (stop.reason for stop in found.report.stopped if stop.at == "patches")
    assert reason.endswith("rank bound 48 of 768 unknowns")


def test_positions_that_differ_keep_their_rank() -> None:
    b = Builder(1, 3, 16, 16)
    b.conv("patches", 16, 4, stride=4)
    b.flatten()
    b.linear("fc1", 10)
    found = find_leak_path(b.graph(), "cross-entropy")
    assert found.knowledge.rank(b.nodes[0]) is None
    assert found.report.reaches_input


def tokens(b: Builder, keep: tuple[int, ...]) -> LeakPath:
    """A dense layer over 6 tokens, of which the head reads some; its output is normalised."""
    b.linear("embed", 8)
    b.same("norm", LayerNorm(1))
    b.node("chosen", Gather(1, keep, (len(keep),)), (1, len(keep), 8))
    b.flatten()
    b.linear("fc1", 10)
    return find_leak_path(b.graph(), "cross-entropy")


@pytest.mark.parametrize("keep", [(0,), (0, 3), (5, 2, 2), (0, 1, 2, 3, 4, 5)])
def test_tokens_that_nothing_reads_send_no_gradient(keep: tuple[int, ...]) -> None:
    b = Builder(1, 6, 4)
    rank = tokens(b, keep).knowledge.rank(b.nodes[0])
    assert rank == (None if len(keep) == 6 else len(set(keep)))


def test_a_dense_layer_over_tokens_needs_as_much_rank_as_it_has_tokens() -> None:
    """Six tokens behind a mean: dl/dW = Gᵀ x is one equation a column, for six unknowns."""
    b = Builder(1, 6, 4)
    b.linear("embed", 8)
    b.node("mean", Reduce("mean", (1,), False), (1, 8))
    b.linear("fc1", 10)
    found = find_leak_path(b.graph(), "cross-entropy")
    assert not found.report.reaches_input
    (reason,) = (stop.reason for stop in found.report.stopped if stop.at == "embed")
    assert "at most rank 1 for its 6 examples or tokens" in reason


def test_a_softmax_over_tokens_mixes_them() -> None:
    b = Builder(1, 6, 4)
    b.linear("embed", 8)
    b.same("softmax", Softmax(1))
    b.node("first", Gather(1, (0,), ()), (1, 8))
    b.linear("fc1", 10)
    assert find_leak_path(b.graph(), "cross-entropy").knowledge.rank(b.nodes[0]) is None


def test_a_mask_keeps_no_rank_but_keeps_zeros() -> None:
    b = Builder(1, 3, 8, 8)
    b.conv("conv1", 16, 3, padding=1)
    b.same("act1", Relu())
    mean(b)
    b.linear("fc1", 10)
    found = find_leak_path(b.graph(), "cross-entropy")
    assert found.knowledge.rank(b.nodes[0]) is None


def test_borders_make_a_convolution_below_an_average_differ() -> None:
    """Kernel 3 with padding sees a constant gradient in 3 ways along each of two axes."""
    b = Builder(1, 3, 8, 8)
    b.conv("conv1", 16, 3, padding=1)
    b.conv("conv2", 16, 3, padding=1)
    b.node("mean", Reduce("mean", (2, 3), False), (1, 16))
    b.linear("fc1", 10)
    found = find_leak_path(b.graph(), "cross-entropy")
    assert found.knowledge.rank(b.nodes[0]) == 9
    assert found.knowledge.rank(b.nodes[1]) == 1


def test_a_narrow_layer_limits_the_rank_below_it() -> None:
    b = Builder(1, 12, 16)
    b.linear("embed", 20)
    b.linear("narrow", 5)
    b.flatten()
    b.linear("fc1", 10)
    found = find_leak_path(b.graph(), "cross-entropy")
    assert found.knowledge.rank(b.nodes[0]) == 5


def test_the_ranks_of_two_uses_add_up() -> None:
    b = Builder(1, 3, 16, 16)
    b.conv("patches", 16, 4, stride=4)
    y = b.newest
    half = Slice((0, 0, 0, 0), (1, 16, 4, 2), (1, 1, 1, 1))
    b.node("half", half, (1, 16, 4, 2), (y,))
    b.node("a", Reduce("mean", (2, 3), False), (1, 16), ("half",))
    b.node("b", Reduce("mean", (2, 3), False), (1, 16), (y,))
    b.node("sum", Add(), (1, 16), ("a", "b"))
    b.linear("fc1", 10)
    found = find_leak_path(b.graph(), "cross-entropy")
    assert found.knowledge.rank(b.nodes[0]) == 2
