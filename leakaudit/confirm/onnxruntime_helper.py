"""What the helper process of the comparison does: onnxruntime on a file. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import onnxruntime


def handle(parts: list[bytes]) -> list[bytes]:
    """Run the file; the parts are its path, the number of outputs, their names, packed inputs."""
    path, count, *rest = parts
    outputs, inputs = rest[: int(count)], rest[int(count) :]
    options = onnxruntime.SessionOptions()
    # Its messages quote the file; what matters comes as an exception.
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        os.fsdecode(path), options, providers=["CPUExecutionProvider"]
    )
    feeds = dict(zip(names(inputs), unpacked(inputs), strict=True))
    arrays = session.run([name.decode() for name in outputs], feeds)
    return packed(zip(("",) * len(arrays), arrays, strict=True))


def packed(arrays: Iterable[tuple[str, np.ndarray]]) -> list[bytes]:
    """Named arrays as byte strings, four for each: name, type, shape and numbers."""
    parts = []
    for name, array in arrays:
        shape = ",".join(map(str, array.shape))
        parts += [name.encode(), array.dtype.name.encode(), shape.encode(), array.tobytes()]
    return parts


def names(parts: list[bytes]) -> list[str]:
    """The names of packed arrays."""
    return [name.decode() for name in parts[::4]]


def unpacked(parts: list[bytes]) -> list[np.ndarray]:
    """Packed arrays, in order.

    Raises:
        ValueError: The parts do not fit together, or an array does not hold plain numbers.
    """
    found = []
    for kind, shape, numbers in zip(parts[1::4], parts[2::4], parts[3::4], strict=True):
        sizes = [int(size) for size in shape.decode().split(",") if size]
        found.append(np.frombuffer(numbers, np.dtype(kind.decode())).reshape(sizes))
    return found
