"""The graph that the ONNX frontend reads computes the same numbers as the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_reference import assert_like_onnxruntime, compute, model, node, numbers, read


def conv(
    sizes: tuple[int, ...], kernel: tuple[int, ...], groups: int = 1, **attributes: Any
) -> onnx.ModelProto:
    weight = numbers(2 * groups, 3, *kernel)
    return model(
        [node("Conv", ["x", "w", "b"], "y", group=groups, **attributes)],
        {"w": weight, "b": numbers(2 * groups)},
        {"x": [2, 3 * groups, *sizes]},
    )


def chain(*nodes: tuple[str, list[str], dict[str, Any]], **inits: np.ndarray) -> onnx.ModelProto:
    """Nodes of one activation input each, one after the other, on a (2, 4, 5, 6) input."""
    made, current = [], "x"
    for index, (op, others, attributes) in enumerate(nodes):
        made.append(node(op, [current, *others], f"t{index}", **attributes))
        current = f"t{index}"
    return model(made, inits, {"x": [2, 4, 5, 6]})


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "conv 1d": lambda: conv((11,), (3,), strides=[2], pads=[1, 0]),
    "conv 2d asymmetric": lambda: conv((9, 10), (3, 4), strides=[2, 3], pads=[0, 1, 2, 3]),
    "conv 3d": lambda: conv((6, 5, 7), (2, 3, 2), strides=[1, 2, 2], pads=[1, 0, 1, 0, 1, 1]),
    "conv groups dilation": lambda: conv((12, 9), (3, 2), 3, dilations=[2, 3], pads=[1, 1, 1, 1]),
    "conv kernel_shape": lambda: conv((8, 8), (3, 3), kernel_shape=[3, 3]),
    "conv SAME_UPPER": lambda: conv((10, 7), (3, 4), strides=[2, 3], auto_pad="SAME_UPPER"),
    "conv SAME_LOWER": lambda: conv((10, 7), (3, 4), strides=[2, 3], auto_pad="SAME_LOWER"),
    "conv SAME_LOWER stride 1": lambda: conv((10, 7), (2, 4), auto_pad="SAME_LOWER"),
    "conv SAME_UPPER stride > kernel": lambda: conv(
        (10, 7), (2, 2), strides=[3, 4], auto_pad="SAME_UPPER"
    ),
    "conv VALID": lambda: conv((10, 7), (3, 4), strides=[2, 3], auto_pad="VALID"),
    "gemm": lambda: model(
        [node("Gemm", ["x", "w", "b"], "y", alpha=0.5, beta=2.0)],
        {"w": numbers(6, 4), "b": numbers(1, 4)},
        {"x": [3, 6]},
    ),
    "gemm transB": lambda: model(
        [node("Gemm", ["x", "w"], "y", transB=1)], {"w": numbers(4, 6)}, {"x": [3, 6]}
    ),
    "matmul over tokens": lambda: model(
        [node("MatMul", ["x", "w"], "y")], {"w": numbers(6, 4)}, {"x": [2, 5, 6]}
    ),
    "activations": lambda: chain(
        ("LeakyRelu", [], {}),
        ("LeakyRelu", [], {"alpha": 0.2}),
        ("Elu", [], {}),
        ("Elu", [], {"alpha": 0.7}),
        ("PRelu", ["channels"], {}),
        ("PRelu", ["one"], {}),
        ("Sigmoid", [], {}),
        ("Tanh", [], {}),
        ("Atan", [], {}),
        ("Softplus", [], {}),
        ("Identity", [], {}),
        ("Dropout", [], {}),
        ("Relu", [], {}),
        channels=numbers(4, 1, 1),
        one=numbers(1),
    ),
    "rearrangements": lambda: chain(
        ("Transpose", [], {"perm": [0, 2, 3, 1]}),
        ("Transpose", [], {}),
        ("Reshape", ["shape"], {}),
        ("Unsqueeze", ["axes"], {}),
        ("Squeeze", ["axes"], {}),
        ("Flatten", [], {"axis": 2}),
        shape=np.array([0, -1, 2]),
        axes=np.array([1]),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_graph_computes_what_the_file_computes(name: str, tmp_path: Path) -> None:
    proto = MODELS[name]()
    assert_like_onnxruntime(proto, read(proto, tmp_path))


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_auto_pad_with_dilation(mode: str, tmp_path: Path) -> None:
    """onnxruntime does not run this combination, so onnx's own evaluator is the judge."""
    proto = conv((10, 7), (3, 2), dilations=[2, 3], strides=[1, 2], auto_pad=mode)
    feeds = {"x": numbers(2, 3, 10, 7)}
    (expected,) = ReferenceEvaluator(proto).run(None, feeds)
    found = compute(read(proto, tmp_path), feeds)["y"].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
