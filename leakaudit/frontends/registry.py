"""Which frontend reads a target, and which targets a folder holds."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from leakaudit.errors import AuditError, UsageError
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph
from leakaudit.sandbox.limits import bounded_memory

FILE_FORMATS = {".onnx": "onnx", ".pt2": "pt2"}
# Suffixes that PyTorch files carry; the pt2 reader tells what they really are.
TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")


def format_of(target: str) -> str:
    """`onnx`, `pt2` or `module`.

    Raises:
        AuditError: It is none of them.
    """
    path = Path(target)
    suffix = path.suffix.lower()
    if suffix in FILE_FORMATS:
        return FILE_FORMATS[suffix]
    if suffix in TORCH_SUFFIXES:
        return "pt2"
    if not path.exists():
        location, colon, attribute = target.rpartition(":")
        if colon and location and attribute.replace(".", "_").isidentifier():
            return "module"
    if suffix == ".py":
        raise AuditError(
            target,
            "a Python file alone names no model",
            f"name the function or class that builds it: {target}:NAME",
        )
    if not path.exists():
        raise AuditError(target, "there is no such file", "check the path")
    raise AuditError(
        target,
        "its name does not end in .onnx or .pt2",
        "export the model with torch.onnx.export or torch.export.save and audit that file",
    )


def load(target: str, options: LoadOptions) -> Graph:
    """Read a model with the frontend of its format.

    Raises:
        AuditError: It cannot be read.
    """
    # Imported on demand: onnx and torch take their time, and the file formats need no torch.
    match format_of(target):
        case "onnx":
            from leakaudit.frontends.onnx import reader as onnx_model

            with bounded_memory(options.limits, target):
                return onnx_model.load(target, options)
        case "pt2":
            from leakaudit.frontends.aten import reader as pt2_model

            with bounded_memory(options.limits, target):
                return pt2_model.load(target, options)
        case _:
            from leakaudit.frontends.aten import module

            return module.load(target, options)


def load_object(model: object, inputs: object, options: LoadOptions) -> Graph:
    """Read a live `torch.nn.Module`, with its example inputs, or an `onnx.ModelProto`.

    Raises:
        AuditError: It cannot be read.
        UsageError: It is neither, or the inputs are nothing that goes into it.
    """
    # Whoever holds such an object has imported the package; we need not.
    torch, onnx = sys.modules.get("torch"), sys.modules.get("onnx")
    if torch is not None and isinstance(model, torch.nn.Module):
        from leakaudit.frontends.aten import module

        return module.load_module(model, inputs, options)
    if onnx is not None and isinstance(model, onnx.ModelProto):
        if inputs is not None:
            raise UsageError("inputs are for live modules: a file says itself what it takes")
        from leakaudit.frontends.onnx import reader

        return reader.load_proto(model, options)
    raise UsageError(
        f"a {type(model).__name__} cannot be audited: give an nn.Module, an onnx.ModelProto, a "
        "path, or 'package.module:callable'"
    )


def expand(target: str) -> tuple[str, ...]:
    """The model files in a folder, sorted; any other target is itself.

    Links to folders are followed, each folder being searched once.

    Raises:
        AuditError: The folder holds no model file.
    """
    folder = Path(target)
    if not folder.is_dir():
        return (target,)
    found = sorted(str(path) for path in _entries(folder) if path.suffix.lower() in FILE_FORMATS)
    if not found:
        raise AuditError(
            target, "the folder holds no .onnx or .pt2 file", "name the model file itself"
        )
    return tuple(found)


def _entries(folder: Path) -> Iterator[Path]:
    """Everything below a folder, links followed; a ring of links ends where it was entered."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place, name) for name in (*folders, *files))


def sha256(target: str) -> str | None:
    """Digest of the target's file, None where it is not a file."""
    path = Path(target)
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
