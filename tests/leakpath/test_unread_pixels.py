"""Pixels that are not read: what is not known of them must not be used further up."""

from __future__ import annotations

from build import Builder, skipping

from leakaudit.facts.fact import Quality, gradient, value
from leakaudit.graph import Graph
from leakaudit.leakpath.path import derivation_tree, find_leak_path
from leakaudit.operators import LeakyRelu, Reshape


def two_readers() -> Graph:
    """One reader skips pixels that the other one reads and sends gradient to."""
    b = Builder(1, 3, 8, 8)
    b.conv("conv1", 2, 3, padding=1)
    b.same("act1", LeakyRelu(0.2))
    both = b.node("both", Reshape(), b.shape())
    b.conv("skipping", 24, 1, stride=2, source=both)
    b.same("act2", LeakyRelu(0.2))
    b.flatten("flatten1")
    first = b.linear("head1", 10)
    b.conv("reading", 1, 3, padding=1, source=both)
    b.flatten("flatten2")
    second = b.linear("head2", 10)
    return b.graph(first, second)


def test_a_skipped_pixel_sends_no_gradient() -> None:
    """Its value is not known, and not needed: one reader, whose gradient there is 0."""
    known = find_leak_path(skipping(3, 12, kernel=1), "cross-entropy").knowledge
    assert known.exact(gradient("conv1"))
    used = {step.conclusion: step.quality for step in derivation_tree(known, gradient("conv1"))}
    assert used[value("act1")] is Quality.READ


def test_pixels_without_influence_are_not_claimed() -> None:
    path = find_leak_path(skipping(3, 12, kernel=1), "cross-entropy")
    assert path.knowledge.quality(value("input")) is not Quality.EXACT
    assert not path.report.reaches_input


def test_a_pixel_skipped_by_one_reader_only_sends_gradient() -> None:
    """dl/do = dl/dy · act'(y) needs y wherever dl/dy is not 0."""
    known = find_leak_path(two_readers(), "cross-entropy").knowledge
    assert known.quality(value("act1")) is Quality.READ
    assert known.quality(gradient("conv1")) is None
