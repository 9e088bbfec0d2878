"""What the helper process of the ONNX frontend does: onnx's C++ code on bytes of a file.

Only onnx's extension module is loaded, not the package around it, which takes far longer.
"""

from __future__ import annotations

import importlib
import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from types import ModuleType

_EXTENSION = "onnx.onnx_cpp2py_export"


def _native() -> ModuleType:
    spec = importlib.util.find_spec("onnx")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for suffix in EXTENSION_SUFFIXES:
            loader = ExtensionFileLoader(_EXTENSION, f"{folder}/onnx_cpp2py_export{suffix}")
            found = importlib.util.spec_from_loader(_EXTENSION, loader)
            try:
                if found is not None:
                    module = importlib.util.module_from_spec(found)
                    loader.exec_module(module)
                    return module
            except ImportError:
                continue
    return importlib.import_module(_EXTENSION)


_onnx = _native()


def handle(parts: list[bytes]) -> list[bytes]:
    """Answer one request; `native.py` writes them."""
    task, *rest = parts
    match task:
        case b"infer node":
            return _infer_node(rest)
        case b"infer model":
            return [_onnx.shape_inference.infer_shapes(rest[0], False, False, True)]
        case b"inline":
            return [_onnx.inliner.inline_local_functions(rest[0], False)]
        case b"check":
            _onnx.checker.check_model(rest[0], True, False, False)
            return []
    raise ValueError(task)


def _infer_node(parts: list[bytes]) -> list[bytes]:
    entries = iter(parts)

    def text() -> str:
        return next(entries).decode()

    def table() -> dict[str, bytes]:
        return {text(): next(entries) for _ in range(int(text()))}

    kind, domain, version, ir_version = text(), text(), int(text()), int(text())
    node, types, data = next(entries), table(), table()
    opsets = {name: int(version) for name, version in table().items()}
    schema = _onnx.defs.get_schema(kind, version, domain)
    found = schema._infer_node_outputs(node, types, data, {}, opsets, ir_version)
    return [part for name, value in found.items() for part in (name.encode(), value)]
