"""The sample model in which each rule finds something, and the one in which it does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from leakaudit.rules.registry import load_rules
from leakaudit.rules.symbols import Level

RULES = {rule.id: rule for rule in load_rules()}
CUSTOM = "custom operator"  # built by the test: no sample is meant to be incomplete


@dataclass(frozen=True, slots=True)
class Pair:
    """Where a rule fires and where it does not: a target and, for rules on layers, the layer.

    `shown` stands in the message, and is known from elsewhere than from the audit.
    """

    fires: str
    quiet: str
    shown: str
    fires_at: str | None = None
    quiet_at: str | None = None


PAIRS = {
    "LA001": Pair("lenet_main.onnx", "lenet_underdetermined.onnx", "3072", "conv1", "conv1"),
    "LA002": Pair("lenet_main.onnx", "lenet_dlg.onnx", "4800", "conv2", "conv2"),
    "LA003": Pair("tabular_mlp.onnx", "mlp_nobias.onnx", "30 inputs", "fc1", "fc1"),
    "LA004": Pair("cnn6.onnx", "cnn6_d.onnx", "3072"),
    "LA005": Pair("cnn6_d.onnx", "cnn6.onnx", "1620"),
    "LA006": Pair(CUSTOM, "lenet_main.onnx", "Blur"),
    "LA007": Pair("cnn6_d.onnx", "cnn6.onnx", "3188 of its 3468", "conv2", "conv2"),
    "LA008": Pair("lenet_skipping.onnx", "lenet_unread.onnx", "2304 of the 3072", "conv1", "conv1"),
    "LA009": Pair("vit.pt2", "vit_sinusoidal.pt2", "add"),
    "LA010": Pair("resnet_leaky.pt2", "resnet_gap.pt2", "1 sum(s) of branches"),
    "LA011": Pair("tabular_mlp.onnx", "lenet_main.onnx", "30 numbers", "fc1", "fc1"),
    "LA012": Pair("resnet_short.pt2", "resnet_leaky.pt2", "block.b"),
}


def custom_operator(folder: Path) -> Path:
    """A convolution below an operator of a domain of its own."""
    weight = np.ones((2, 3, 3, 3), dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "conv.weight"], ["features"], name="conv"),
            helper.make_node("Blur", ["features"], ["output"], name="blur", domain="my.company"),
        ],
        "custom",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 2, 6, 6])],
        [numpy_helper.from_array(weight, "conv.weight")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.company", 1)]
    path = folder / "custom.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_every_rule_has_its_samples() -> None:
    assert sorted(PAIRS) == sorted(RULES)
    for rule, pair in PAIRS.items():
        assert (pair.fires_at is not None) == (RULES[rule].level is Level.LAYER), rule
        assert (pair.quiet_at is not None) == (RULES[rule].level is Level.LAYER), rule
        assert pair.fires != pair.quiet, rule
