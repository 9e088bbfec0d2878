"""ONNX files whose numbers are said to lie outside of their folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from corpus_onnx import good_model
from onnx import TensorProto

OUTSIDE = (
    "../secret",
    "/etc/passwd",
    "a/../../secret",
    "..\\secret",
    "C:\\secret",
    "\\\\host\\share",
    "file:///etc/passwd",
    "",
    "w\0.bin",
    ".",
    "/dev/zero",
)


def external(location: str, **entries: str) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        model = good_model()
        tensor = next(stored for stored in model.graph.initializer if stored.name == "w1")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=value)
        path.write_bytes(model.SerializeToString(deterministic=True))

    return make


def linked_out(path: Path) -> None:
    (path.parent / "w.bin").symlink_to("/etc/passwd")
    external("w.bin")(path)


def linked_folder(path: Path) -> None:
    (path.parent / "data").symlink_to("/etc")
    external("data/passwd")(path)
