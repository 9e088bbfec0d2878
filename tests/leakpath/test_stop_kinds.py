"""A stop is proven where counting alone shows it; everything else is merely not followed."""

from __future__ import annotations

import pytest
from places import SAMPLES

import leakaudit
from leakaudit.findings import StopKind
from leakaudit.frontends import registry
from leakaudit.frontends.interface import LoadOptions
from leakaudit.leakpath.path import find_leak_path


def kinds(name: str) -> dict[str, StopKind]:
    path = find_leak_path(registry.load(str(SAMPLES / name), LoadOptions()), "cross-entropy")
    return {stop.at: stop.kind for stop in path.report.stopped}


@pytest.mark.parametrize(
    ("name", "layer"), [("lenet_underdetermined.onnx", "conv1"), ("cnn6_d.onnx", "conv2")]
)
def test_too_few_equations_are_a_proof(name: str, layer: str) -> None:
    assert kinds(name) == {layer: StopKind.PROVEN}


def test_another_reader_of_the_same_tensor_may_close_what_one_leaves_open() -> None:
    """The shortcut of the residual block reads what the convolution reads."""
    assert kinds("resnet_short.pt2") == {"block.b": StopKind.NOT_FOLLOWED}


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_copies_in_a_padding_are_no_unknowns_that_counting_may_call_open(mode: str) -> None:
    """72 padded values, 32 pixels: the equations of the padded layer fix these, taken together."""
    nn = pytest.importorskip("torch").nn
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, 2, 2, padding_mode=mode),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(27, 10),
    )
    graph = leakaudit.load(model, input_shape=(1, 2, 4, 4))
    stopped = find_leak_path(graph, "cross-entropy").report.stopped
    assert [stop.kind for stop in stopped] == [StopKind.NOT_FOLLOWED]
