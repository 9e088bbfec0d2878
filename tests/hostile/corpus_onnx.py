"""A good ONNX file damaged byte by byte, and protobuf that no writer would write."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import onnx
from corpus import Case, content
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

FILE = "model.onnx"
TRUNCATIONS = 40
FLIPS = 60


def good_model() -> onnx.ModelProto:
    """Two convolutions and a dense layer with a shape computed on the way."""
    rng = np.random.default_rng(0)

    def numbers(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.uniform(-1, 1, shape).astype(np.float32), name)

    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w1", "b1"], ["h1"], "conv1", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["h1"], ["a1"], "relu1"),
            helper.make_node("Conv", ["a1", "w2", "b2"], ["h2"], "conv2", strides=[2, 2]),
            helper.make_node("Sigmoid", ["h2"], ["a2"], "act2"),
            helper.make_node("Reshape", ["a2", "shape"], ["f"], "flatten"),
            helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "fc", transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 7, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [
            *(numbers("w1", 3, 2, 3, 3), numbers("b1", 3), numbers("w2", 2, 3, 3, 3)),
            *(numbers("b2", 2), numbers("w3", 5, 18), numbers("b3", 5)),
            numpy_helper.from_array(np.array([1, -1], np.int64), "shape"),
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def onnx_cases() -> list[Case]:
    """Truncations, bit flips, and hand-made protobuf."""
    data = good_model().SerializeToString(deterministic=True)
    return [
        *(content(f"onnx: {name}", FILE, changed) for name, changed in _damaged(data)),
        *(content(f"onnx: {name}", FILE, made) for name, made in _wire().items()),
    ]


def _damaged(data: bytes) -> Iterator[tuple[str, bytes]]:
    step = len(data) / TRUNCATIONS
    for number in range(1, TRUNCATIONS):
        length = int(number * step)
        if is_refused(data[:length]):
            yield f"truncated to {length} bytes", data[:length]
    rng = random.Random(5)
    found = 0
    while found < FLIPS:
        place, bit = rng.randrange(len(data)), rng.randrange(8)
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        if is_refused(bytes(changed)):
            found += 1
            yield f"{found}: bit {bit} of byte {place} flipped", bytes(changed)


def is_refused(data: bytes) -> bool:
    """Whether onnx's own checker, shapes included, refuses a file.

    What it says of the version of the format is left out: that says nothing of the network.
    """
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        return True
    model.ir_version = 8
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return True
    return False


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field of the wire format."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    """A number in the wire format."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _wire() -> dict[str, bytes]:
    good = good_model().SerializeToString(deterministic=True)
    graph = good_model().graph.SerializeToString(deterministic=True)
    nested = b""
    for _ in range(3000):  # GraphProto.node, NodeProto.attribute, AttributeProto.g
        nested = _field(1, _field(5, _field(6, nested)))
    groups = b"\x0b" * 20_000
    return {
        "3000 nested graphs": b"\x08\x08" + _field(7, nested),
        "20000 open groups": groups,
        "a length beyond the end": good[:-3] + b"\x3a\xff\xff\xff\xff\x0f",
        "a varint of 11 bytes": b"\x08" + b"\xff" * 10 + b"\x01" + good,
        "field number 0": b"\x00\x00" + good,
        "wire type 7": b"\x0f" + good,
        "only a graph": graph,
        "a graph of 100000 empty nodes": b"\x08\x08" + _field(7, b"\x0a\x00" * 100_000),
        "a graph of 300000 empty nodes": b"\x08\x08" + _field(7, b"\x0a\x00" * 300_000),
        "100000 empty functions": good + b"\xca\x01\x00" * 100_000,
        "100000 empty initializers": b"\x08\x08" + _field(7, b"\x2a\x00" * 100_000),
        "the graph left out": good_model_without_graph(),
        "names that are not UTF-8": good.replace(b"conv1", b"\xff\xfe\xfd\x80\x80").replace(
            b"\x02h1", b"\x02\xc0\x80"
        ),
    }


def good_model_without_graph() -> bytes:
    """Version and operator sets alone."""
    model = good_model()
    model.ClearField("graph")
    data: bytes = model.SerializeToString()
    return data
