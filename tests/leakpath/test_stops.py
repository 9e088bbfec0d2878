"""Where a path must end, and the reason it gives."""

from __future__ import annotations

import pytest
from build import Builder, cnn6, lenet_main

from leakaudit.facts.fact import Quality, value
from leakaudit.findings import LeakPathReport
from leakaudit.graph import Graph
from leakaudit.leakpath.path import find_leak_path
from leakaudit.operators import Add, LeakyRelu, Softmax, Transpose, Unsupported


def report(graph: Graph, loss: str = "cross-entropy") -> LeakPathReport:
    return find_leak_path(graph, loss).report


def reasons(found: LeakPathReport) -> dict[str, str]:
    assert not found.reaches_input
    return {stop.at: stop.reason for stop in found.stopped}


def test_squared_error_leaves_the_scale_of_a_layer_without_bias_open() -> None:
    found = report(lenet_main(head={"bias": False}), "mse")
    assert "target of a squared error" in reasons(found)["fc1"]
    assert "scale" in reasons(found)["fc1"]
    # What is known is said with its quality, and nothing is solved from it.
    assert found.steps[0].fact == "value(flatten) up to one unknown scale"
    assert "convolution-value" not in {step.kind for step in found.steps}


@pytest.mark.parametrize("loss", ["cross-entropy", "bce"])
def test_a_loss_over_labels_fixes_the_scale(loss: str) -> None:
    assert report(lenet_main(head={"bias": False}), loss).reaches_input


def test_squared_error_does_not_matter_where_there_is_a_bias() -> None:
    assert report(lenet_main(), "mse").reaches_input


def test_loss_equation_needs_the_head() -> None:
    """A dense layer without bias in the middle: its scale is in no loss equation of its own."""
    b = Builder(1, 20)
    b.linear("fc1", 30, bias=False)
    b.node("mystery", Unsupported("com.example::Mystery", "not known"), (1, 30))
    b.linear("fc2", 10, bias=False)
    path = find_leak_path(b.graph(), "cross-entropy")
    assert path.knowledge.quality(value("input")) is Quality.SCALED
    assert list(reasons(path.report)) == ["mystery"]
    # Up to its brightness the input says more than exact features do.
    assert path.report.furthest == "input"


def test_two_examples_are_not_separated() -> None:
    found = report(lenet_main(batch=2))
    assert "summed over 2 examples" in reasons(found)["fc1"]
    assert (found.furthest, found.furthest_size, found.steps) == (None, 0, ())


def test_a_frozen_head_sends_nothing() -> None:
    found = report(lenet_main(head={"trainable": False}))
    assert reasons(found) == {
        "fc1": "Linear of flatten (1x192): its weight is frozen: no gradient is sent"
    }
    assert found.furthest is None


def test_a_frozen_head_with_a_trained_bias_still_passes_its_gradient() -> None:
    """Without an activation in between, gradient constraints alone give the input."""
    b = Builder(1, 2, 6, 6)
    b.conv("conv1", 4, 3, padding=1)
    b.flatten()
    b.linear("fc1", 10, trainable=False, bias_trainable=True)
    found = report(b.graph())
    assert found.reaches_input
    assert "value" not in {premise.split("(")[0] for s in found.steps for premise in s.premises}


def test_a_frozen_convolution_gives_weight_constraints_only() -> None:
    """16 filters of 18 taps: each output position gives 16 equations for 72 unknowns of 2x6x6."""
    for filters, reaches in ((16, True), (1, False)):
        b = Builder(1, 2, 6, 6)
        b.conv("conv1", filters, 3, padding=1, trainable=False)
        b.same("act1", LeakyRelu(0.2))
        b.flatten()
        b.linear("fc1", 10)
        found = report(b.graph())
        assert found.reaches_input is reaches
        if reaches:
            assert found.steps[-1].premises == ("value(conv1)",)
            assert found.steps[-1].counts["gradient_constraints"] == 0
        else:
            assert "frozen" in reasons(found)["conv1"]
            assert "rank bound 36 of 72 unknowns" in reasons(found)["conv1"]


def test_a_shared_weight_sends_a_sum() -> None:
    b = Builder(1, 12)
    b.linear("fc1", 12, weight="tied", bias=False)
    b.same("act1", LeakyRelu(0.2))
    b.linear("fc2", 12, weight="tied", bias=False)
    found = report(b.graph())
    assert reasons(found) == {"fc2": "Linear of act1 (1x12): its weight is shared"}
    assert found.furthest is None


def test_a_shared_convolution_gives_no_gradient_constraints() -> None:
    b = Builder(1, 4, 6, 6)
    b.conv("conv1", 4, 3, padding=1, weight="tied")
    b.same("act1", LeakyRelu(0.2))
    b.conv("conv2", 4, 3, padding=1, weight="tied")
    b.same("act2", LeakyRelu(0.2))
    b.flatten()
    b.linear("fc1", 10)
    found = report(b.graph())
    steps = [step for step in found.steps if step.kind == "convolution-value"]
    assert [step.layer for step in steps] == ["conv2", "conv1"]
    assert all(step.counts["gradient_constraints"] == 0 for step in steps)


def test_an_unsupported_operator_stops_the_path_with_its_name() -> None:
    b = Builder(1, 3, 8, 8)
    b.conv("conv1", 12, 3, padding=1)
    b.same("mystery", Unsupported("com.example::Mystery", "its domain is not known"))
    b.conv("conv2", 12, 3, padding=1)
    b.same("act2", LeakyRelu(0.2))
    b.flatten()
    b.linear("fc1", 10)
    found = report(b.graph())
    assert found.furthest == "mystery"
    assert reasons(found) == {
        "mystery": "Unsupported of conv1 (1x12x8x8): unsupported operator com.example::Mystery: "
        "its domain is not known"
    }


def test_an_unsupported_head_leaves_nothing_unexplained() -> None:
    b = Builder(1, 12)
    b.linear("fc1", 5)
    b.same("head", Unsupported("Mystery", "not known"))
    found = report(b.graph())
    # The bias gradient below it is shared all the same.
    assert found.reaches_input
    b = Builder(1, 3, 8, 8)
    b.conv("conv1", 12, 3)
    b.same("head", Unsupported("Mystery", "not known"))
    assert "Mystery" in reasons(report(b.graph()))["head"]


def test_a_head_that_only_moves_elements_is_no_reason() -> None:
    """The reason stands below it: the softmax that it moves the elements of."""
    b = Builder(1, 4, 12)
    b.linear("fc1", 5, bias=False)
    b.same("softmax", Softmax(2))
    b.node("moved", Transpose((0, 2, 1)), (1, 5, 4))
    b.flatten()
    found = report(b.graph())
    assert reasons(found) == {
        "softmax": "Softmax of fc1 (1x4x5): softmax forgets what all its inputs have in common"
    }


def test_a_network_of_silent_operators_says_where_it_ends() -> None:
    """The learned summand sends the gradient of the sum, and no equation gives a value."""
    b = Builder(1, 6)
    b.node("sum", Add(), (1, 6), ("input", b.parameter("position", (1, 6))))
    b.flatten()
    found = report(b.graph())
    assert reasons(found) == {
        "sum": "Add of input (1x6): its gradient passes, and no equation gives a value"
    }


def test_what_stops_behind_a_sum_is_not_repeated_before_it() -> None:
    """The convolution of a residual block is too small: what stands before it only follows."""
    b = Builder(1, 3, 8, 8)
    b.conv("stem", 3, 3, padding=1)
    stem = b.same("act1", LeakyRelu(0.2))
    b.conv("inner", 3, 3, padding=1)
    b.same("act2", LeakyRelu(0.2))
    branch = b.conv("outer", 3, 3, padding=1)
    b.node("sum", Add(), b.shape(stem), (stem, branch))
    b.flatten()
    b.linear("fc1", 10)
    assert list(reasons(report(b.graph()))) == ["outer"]


@pytest.mark.parametrize(
    ("graph", "loss"),
    [
        (lenet_main(2), "cross-entropy"),
        (lenet_main(head={"bias": False}), "mse"),
        (lenet_main(head={"trainable": False}), "cross-entropy"),
        (cnn6(4), "bce"),
        (cnn6(20), "mse"),
    ],
    ids=["batch", "mse", "frozen", "few-filters", "no-bias-mse"],
)
def test_a_path_that_does_not_arrive_says_why(graph: Graph, loss: str) -> None:
    found = report(graph, loss)
    assert not found.reaches_input
    assert found.stopped
    assert all(stop.reason for stop in found.stopped)
    names = {node.name for node in graph.nodes}
    assert {stop.at for stop in found.stopped} <= names
