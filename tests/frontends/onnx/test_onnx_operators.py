"""Operators of real networks: every value against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_reference import model, node, numbers, read
from onnx_running import assert_runs_like_onnxruntime, ints, one

from leakaudit import operators as ops
from leakaudit.leakpath.path import find_leak_path

SQUARE = (5, 6)

MODELS: dict[str, Callable[[], tuple[onnx.ModelProto, list[type[ops.Operator]]]]] = {
    "gemm transA": lambda: (
        one("Gemm", ["w"], (6, 5), transA=1, inits={"w": numbers(6, 4)}),
        [ops.Transpose, ops.MatMul],
    ),
    "gemm with a matrix added": lambda: (
        one(
            "Gemm",
            ["w", "c"],
            SQUARE,
            alpha=0.5,
            beta=2.0,
            inits={"w": numbers(6, 4), "c": numbers(5, 4)},
        ),
        [ops.Linear, ops.Scale, ops.Add],
    ),
    "gemm of itself": lambda: (
        one("Gemm", ["x", "c"], SQUARE, transB=1, alpha=0.5, inits={"c": numbers(5)}),
        [ops.Transpose, ops.MatMul, ops.Scale, ops.Add],
    ),
    "matmul, stored left": lambda: (
        one("MatMul", before=["w"], inits={"w": numbers(3, 6)}),
        [ops.MatMul],
    ),
    "matmul, stored batch": lambda: (
        one("MatMul", ["w"], inits={"w": numbers(4, 6, 3)}),
        [ops.MatMul],
    ),
    "einsum": lambda: (
        one("Einsum", ["w"], equation="...ij, jk", inits={"w": numbers(6, 3)}),
        [ops.Einsum],
    ),
    "subtraction from a constant": lambda: (
        one("Sub", before=["c"], inits={"c": numbers(1)}),
        [ops.Sub],
    ),
    "division": lambda: (one("Div", ["c"], inits={"c": numbers(4, 1, 1) + 2}), [ops.Div]),
    "integer exponent": lambda: (one("Pow", ["c"], inits={"c": ints(2)}), [ops.Pow]),
    "sum": lambda: (
        one("Sum", ["a", "b", "x"], inits={"a": numbers(6), "b": numbers(4, 1, 1)}),
        [ops.Add] * 3,
    ),
    "sum of one": lambda: (one("Sum"), [ops.Identity]),
    "mean": lambda: (
        one("Mean", ["a", "x"], inits={"a": numbers(6)}),
        [ops.Add, ops.Add, ops.Scale],
    ),
    "relu6 by min and max": lambda: (
        model(
            [node("Max", ["x", "low"], "m"), node("Min", ["high", "m"], "y")],
            {"low": np.float32(0), "high": np.full((1,), 0.5, np.float32)},
            {"x": [2, 6]},
        ),
        [ops.Clip, ops.Clip],
    ),
    "where hides": lambda: (
        one(
            "Where",
            ["hidden"],
            (2, 4, 4),
            before=["seen"],
            inits={"seen": np.tril(np.ones((4, 4), bool)), "hidden": np.float32(-np.inf)},
        ),
        [ops.Where],
    ),
    "where chooses": lambda: (
        one(
            "Where",
            ["other"],
            (2, 4, 4),
            before=["seen"],
            inits={"seen": np.tril(np.ones((4, 4), bool)), "other": numbers(2, 4, 4)},
        ),
        [ops.Where],
    ),
    "clip by attributes": lambda: (one("Clip", opset=8, min=-0.25, max=0.5), [ops.Clip]),
    "clip from below": lambda: (one("Clip", opset=8, min=-0.25), [ops.Clip]),
    "dropout of opset 7": lambda: (one("Dropout", opset=7, ratio=0.5), [ops.Identity]),
    "softmax over the rest": lambda: (
        one("Softmax", opset=11),
        [ops.Reshape, ops.Softmax, ops.Reshape],
    ),
    "logsoftmax over the rest": lambda: (
        one("LogSoftmax", opset=11, axis=2),
        [ops.Reshape, ops.Softmax, ops.Reshape],
    ),
    "softmax of an image of one pixel": lambda: (
        one("Softmax", (), (2, 4, 1, 1), 11),  # type: ignore[arg-type]
        [ops.Softmax],
    ),
    "softmax over the channels": lambda: (one("Softmax", axis=1), [ops.Softmax]),
    "slice by attributes": lambda: (
        one("Slice", opset=9, starts=[1, -3], ends=[3, 2**31 - 1], axes=[1, 3]),
        [ops.Slice],
    ),
    "slice backwards": lambda: (
        one(
            "Slice",
            ["s", "e", "a", "t"],
            inits={"s": ints(-1, 5), "e": ints(-(2**31), 1), "a": ints(-1, 2), "t": ints(-1, -2)},
        ),
        [ops.Slice],
    ),
    "pad and cut": lambda: (
        one(
            "Pad",
            ["p", "v"],
            inits={"p": ints(0, 0, 1, -2, 0, 0, -1, 3), "v": np.float32(0.5)},
        ),
        [ops.Slice, ops.Pad],
    ),
    "cut by padding": lambda: (
        one("Pad", ["p"], inits={"p": ints(0, 0, -1, -2, 0, 0, -1, 0)}),
        [ops.Slice],
    ),
    "pad by attributes": lambda: (
        one("Pad", opset=9, pads=[0, 0, 1, 2, 0, 0, 2, 1], mode="reflect"),
        [ops.Pad],
    ),
    "tile": lambda: (
        one("Tile", ["r"], (2, 1, 3), inits={"r": ints(1, 2, 3)}),
        [ops.Concat, ops.Concat],
    ),
    "tile of single elements": lambda: (
        one("Tile", ["r"], (2, 1, 3), inits={"r": ints(1, 5, 1)}),
        [ops.Expand],
    ),
    "gather": lambda: (
        one("Gather", ["i"], axis=-1, inits={"i": ints(-1, 0, 2, 2).reshape(2, 2)}),
        [ops.Gather],
    ),
    "gather of one": lambda: (
        one("Gather", ["i"], axis=1, inits={"i": np.array(-2, np.int64)}),
        [ops.Gather],
    ),
    "depth to space": lambda: (
        one("DepthToSpace", blocksize=2, mode="CRD"),
        [ops.Reshape, ops.Transpose, ops.Reshape],
    ),
    "reduce by attribute": lambda: (
        one("ReduceMean", axes=[-1, 1], keepdims=0),
        [ops.Reduce],
    ),
    "reduce everything": lambda: (one("ReduceSum"), [ops.Reduce]),
    "reduce nothing": lambda: (
        one("ReduceSum", ["a"], inits={"a": ints()}, noop_with_empty_axes=1),
        [ops.Reduce],
    ),
    "global lp pool": lambda: (one("GlobalLpPool", p=3), [ops.LpPool]),
    "max pool": lambda: (
        one("MaxPool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 0, 1], dilations=[1, 2]),
        [ops.MaxPool],
    ),
    "max pool rounds up": lambda: (
        one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        [ops.MaxPool],
    ),
    "average pool": lambda: (
        one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
        [ops.AveragePool],
    ),
    "average pool counts padding": lambda: (
        one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        [ops.AveragePool],
    ),
    "transposed convolution": lambda: (
        one(
            "ConvTranspose",
            ["w", "b"],
            strides=[2, 3],
            pads=[1, 0, 2, 1],
            output_padding=[1, 2],
            group=2,
            inits={"w": numbers(4, 3, 3, 4), "b": numbers(6)},
        ),
        [ops.ConvTranspose],
    ),
    "transposed convolution to a shape": lambda: (
        one(
            "ConvTranspose",
            ["w"],
            strides=[2, 2],
            output_shape=[12, 11],
            inits={"w": numbers(4, 3, 3, 3)},
        ),
        [ops.ConvTranspose],
    ),
    "batch normalisation": lambda: (
        one(
            "BatchNormalization",
            ["s", "b", "m", "v"],
            epsilon=0.01,
            inits={"s": numbers(4), "b": numbers(4), "m": numbers(4), "v": numbers(4) ** 2},
        ),
        [ops.BatchNorm],
    ),
    "layer normalisation": lambda: (
        one(
            "LayerNormalization",
            ["s", "b"],
            axis=2,
            inits={"s": numbers(6, 6), "b": numbers(6, 6)},
        ),
        [ops.LayerNorm],
    ),
    "layer normalisation, repeated scale": lambda: (
        one("LayerNormalization", ["s"], axis=2, inits={"s": numbers(6)}),
        [ops.LayerNorm, ops.Mul],
    ),
    "instance normalisation": lambda: (
        one("InstanceNormalization", ["s", "b"], inits={"s": numbers(4), "b": numbers(4)}),
        [ops.GroupNorm],
    ),
    "group normalisation": lambda: (
        one(
            "GroupNormalization",
            ["s", "b"],
            opset=21,
            num_groups=2,
            inits={"s": numbers(4), "b": numbers(4)},
        ),
        [ops.GroupNorm],
    ),
    "local response": lambda: (
        one("LRN", size=3, alpha=0.1, beta=0.6, bias=2.0),
        [ops.LocalResponseNorm],
    ),
    "p-norm": lambda: (one("LpNormalization", axis=1, p=1), [ops.LpNormalization]),
    "mean and variance": lambda: (
        one("MeanVarianceNormalization", axes=[0, 2, 3]),
        [
            ops.Reduce,
            ops.Sub,
            ops.Elementwise,
            ops.Reduce,
            ops.Elementwise,
            ops.Scale,
            ops.Div,
        ],
    ),
    "upsample of opset 7": lambda: (
        one("Upsample", opset=7, mode="linear", scales=[1.0, 1.0, 2.0, 1.5]),
        [ops.Resize],
    ),
    "resize of opset 10": lambda: (
        one("Resize", ["s"], opset=10, inits={"s": np.array([1, 1, 2, 0.5], np.float32)}),
        [ops.Resize],
    ),
    "resize by some axes": lambda: (
        one(
            "Resize",
            ["", "s"],
            opset=18,
            axes=[3, 2],
            mode="linear",
            inits={"s": np.array([1.5, 2], np.float32)},
        ),
        [ops.Resize],
    ),
    "resize to sizes": lambda: (
        one(
            "Resize",
            ["", "", "n"],
            mode="cubic",
            coordinate_transformation_mode="align_corners",
            inits={"n": ints(2, 4, 9, 4)},
        ),
        [ops.Resize],
    ),
    "half precision and back": lambda: (
        model(
            [node("Cast", ["x"], "d", to=TensorProto.DOUBLE), node("CastLike", ["d", "x"], "y")],
            {},
            {"x": [2, 3]},
        ),
        [ops.Identity, ops.Identity],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_operator(name: str, tmp_path: Path) -> None:
    proto, kinds = MODELS[name]()
    graph = read(proto, tmp_path)
    assert [type(entry.op) for entry in graph.nodes] == kinds
    assert graph.outputs == ("y",)
    assert_runs_like_onnxruntime(proto, graph)
    find_leak_path(graph, "cross-entropy")  # whatever it finds, every operator can be asked
