"""A stop is proven where counting alone shows it; everything else is merely not followed."""

from __future__ import annotations

import pytest
from places import SAMPLES

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
