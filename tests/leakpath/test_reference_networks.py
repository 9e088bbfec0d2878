"""Leak paths of the published networks: which steps, in which order, with which equations."""

from __future__ import annotations

import pytest
from build import Builder, cnn6, lenet_main

from leakaudit.graph import Graph
from leakaudit.leakpath.path import LeakPath, find_leak_path
from leakaudit.operators import LeakyRelu


def solved(path: LeakPath) -> list[tuple[str, int, int, int]]:
    """Per solved convolution: layer, unknowns, gradient constraints, weight constraints."""
    return [
        (
            step.layer,
            step.counts["unknowns"],
            step.counts["gradient_constraints"],
            step.counts["weight_constraints"],
        )
        for step in path.report.steps
        if step.kind == "convolution-value"
    ]


def test_lenet_main_leaks_its_input() -> None:
    path = find_leak_path(lenet_main(), "cross-entropy")
    assert path.report.reaches_input
    assert (path.report.furthest, path.report.furthest_size) == ("input", 3072)
    assert path.report.stopped == ()
    # Gradient constraints alone, where they suffice: no activation has to be inverted.
    assert solved(path) == [
        ("conv4", 768, 900, 0),
        ("conv3", 1024, 4800, 0),
        ("conv2", 3072, 4800, 0),
        ("conv1", 3072, 900, 3072),
    ]


def test_lenet_main_step_by_step() -> None:
    """The chain that the literature describes: dense layer, then per convolution three steps."""
    steps = find_leak_path(lenet_main(), "cross-entropy").report.steps
    assert (steps[0].kind, steps[0].fact, steps[0].premises) == (
        "dense-gradient-from-bias",
        "gradient(fc1)",
        (),
    )
    facts = [(step.kind, step.fact) for step in steps]
    assert ("dense-value-from-bias", "value(flatten)") in facts
    backwards = [fact for kind, fact in facts if kind == "activation-gradient"]
    assert backwards == [f"gradient(conv{i})" for i in (4, 3, 2, 1)]
    # Only the first convolution needs its output: only one activation is inverted.
    assert [fact for kind, fact in facts if kind == "activation-inverse"] == ["value(conv1)"]
    assert facts[-1] == ("convolution-value", "value(input)")
    assert steps[-1].premises == ("gradient(conv1)", "value(conv1)")
    assert "900 gradient constraints" in steps[-1].derivation
    assert "3072 weight constraints" in steps[-1].derivation
    assert "3072 unknowns" in steps[-1].derivation


def test_cnn6_without_biases_starts_from_the_loss() -> None:
    path = find_leak_path(cnn6(), "bce")
    assert path.report.reaches_input
    kinds = {step.layer: step.kind for step in path.report.steps if step.tensor == "flatten"}
    assert kinds["fc1"] == "dense-value-from-loss"
    assert solved(path)[-2:] == [("conv2", 3468, 3888, 2916), ("conv1", 3072, 576, 3468)]


def test_cnn6_d_stops_where_r_gap_fails() -> None:
    """More equations than unknowns, and still 280 short: 592 of them are redundant."""
    path = find_leak_path(cnn6(second=20), "bce")
    assert not path.report.reaches_input
    assert (path.report.furthest, path.report.furthest_size) == ("conv2", 1620)
    (stop,) = path.report.stopped
    assert stop.at == "conv2"
    assert "2160 gradient and 1620 weight constraints" in stop.reason
    assert "rank bound 3188 of 3468 unknowns" in stop.reason
    assert "592 redundant" in stop.reason


def unread() -> Graph:
    """Kernel 1 and stride 2: three pixels of four have no influence on anything."""
    b = Builder(1, 3, 8, 8)
    b.conv("conv1", 12, 1, stride=2)
    b.same("act1", LeakyRelu(0.2))
    b.flatten()
    b.linear("fc1", 10)
    return b.graph()


def test_unread_pixels_are_not_claimed() -> None:
    path = find_leak_path(unread(), "cross-entropy")
    assert not path.report.reaches_input
    assert path.report.furthest == "input"
    assert path.report.steps[-1].fact == "value(input) on the pixels that are read"
    (stop,) = path.report.stopped
    assert stop.at == "conv1"
    assert "144 pixels are read by no tap" in stop.reason
    assert "rank bound 48 of 192 unknowns" in stop.reason


@pytest.mark.parametrize(
    ("graph", "loss"),
    [
        (lenet_main(), "cross-entropy"),
        (cnn6(), "bce"),
        (cnn6(20), "bce"),
        (unread(), "cross-entropy"),
    ],
    ids=["lenet_main", "cnn6", "cnn6_d", "unread"],
)
def test_premises_come_before_conclusions(graph: Graph, loss: str) -> None:
    path = find_leak_path(graph, loss)
    known: set[str] = set()
    for step in path.steps:
        assert {str(premise) for premise in step.premises} <= known, step
        known.add(str(step.conclusion))
    assert str(path.steps[-1].conclusion) == str(path.target)
    assert len(path.steps) == len(path.report.steps) > 5
