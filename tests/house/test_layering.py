"""The architecture: which part imports which, and where foreign packages may be touched.

Every import statement counts, also those in functions and under TYPE_CHECKING: a type that is
needed is a dependency.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from places import PACKAGE

# Part -> parts it may import, besides itself and the bare package with its version number.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "graph": set(),
    "findings": set(),
    "counting": {"graph", "findings"},
    "facts": {"graph"},
    "operators": {"graph", "counting", "facts"},
    "sandbox": {"errors"},
    "frontends": {"graph", "operators", "errors", "sandbox"},
    "leakpath": {"graph", "counting", "facts", "findings"},
    "rules": {"findings", "errors"},
    "report": {"findings", "errors"},
    "config": {"findings", "errors", "sandbox"},
    "equations": {"graph", "operators", "counting"},
    "solvers": {"counting", "equations"},
    "execute": {"graph", "operators", "equations", "errors"},
    # The attacker knows neither the client's input nor the judge: confirm is out of its reach.
    "attack": {"graph", "counting", "facts", "operators", "leakpath", "equations", "solvers"}
    | {"execute"},
    "confirm": {"attack", "counting", "equations", "errors", "execute", "facts", "findings"}
    | {"graph", "leakpath", "operators", "sandbox", "solvers"},
    "advice": {"confirm", "counting", "errors", "facts", "findings", "frontends", "graph"}
    | {"leakpath", "operators", "report"},
    "explain": {"counting", "errors", "findings", "frontends", "operators", "report", "rules"},
    "pipeline": {"advice", "config", "confirm", "counting", "errors", "facts", "findings"}
    | {"frontends", "graph", "leakpath", "operators", "report", "rules", "sandbox"},
    "bench": {"attack", "confirm", "counting", "equations", "errors", "execute", "frontends"}
    | {"graph", "operators", "report", "solvers"},
    "cli": {"advice", "bench", "config", "confirm", "errors", "explain", "findings", "frontends"}
    | {"operators", "pipeline", "report", "rules", "sandbox"},
    "__main__": {"cli"},
    # leakaudit/__init__.py, the public API: its parts are imported when they are first used.
    "": {"advice", "attack", "errors", "findings", "graph", "leakpath", "pipeline"},
}

# Foreign package -> the files that may touch it; a trailing slash names a folder.
TORCH = ("equations/", "solvers/", "execute/", "attack/", "confirm/", "bench/")
ONLY_IN: dict[str, tuple[str, ...]] = {
    "torch": (*TORCH, "frontends/aten/module.py", "frontends/aten/live.py"),
    "onnxruntime": ("confirm/onnxruntime_helper.py",),
    "onnx": ("frontends/onnx/",),
    "google": ("frontends/onnx/",),  # protobuf
    "PIL": ("report/images.py", "confirm/probes.py", "bench/"),
    # It pickles, our own objects between our own processes: never what comes from a model file.
    "joblib": ("pipeline/many/",),
    "dask": ("pipeline/many/dask.py",),
    "distributed": ("pipeline/many/dask.py",),
    "click": ("cli/", "report/"),  # report: terminal styles
}
NOWHERE = {"pickle", "marshal", "shelve", "dill"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("leakaudit", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def part(module: str) -> str:
    """`leakaudit.operators.base` belongs to `graph`, `leakaudit` itself to the empty part."""
    return module.split(".")[1] if "." in module else ""


def imports(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Dotted names of all that a module imports, anywhere in it, literal dynamic imports too."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=base, names=names, level=level):
                parents = package.split(".")[: len(package.split(".")) - level + 1]
                origin = ".".join([*(parents if level else []), *([base] if base else [])])
                for alias in names:
                    # `from leakaudit import graph` imports a module, not a name in one.
                    whole = f"{origin}.{alias.name}"
                    yield whole if whole in MODULES else origin
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


@cache
def imports_of(module: str) -> set[str]:
    path = MODULES[module]
    source = path.read_text(encoding="utf-8")
    return set(imports(source, module, path.name == "__init__.py"))


def test_every_file_has_its_place() -> None:
    """A new part needs a row in the table above, and a decision what it may know."""
    assert len(MODULES) > 60
    assert {part(module) for module in MODULES} <= MAY_IMPORT.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    own = part(module)
    reached = {part(name) for name in imports_of(module) if name.split(".")[0] == "leakaudit"}
    assert reached <= MAY_IMPORT[own] | {own, ""}


@pytest.mark.parametrize("module", MODULES)
def test_imported_modules_exist(module: str) -> None:
    """A function-level import of a module that is gone is found by its first user otherwise."""
    ours = {name for name in imports_of(module) if name.split(".")[0] == "leakaudit"}
    assert ours <= MODULES.keys()


@pytest.mark.parametrize("foreign", ONLY_IN)
def test_foreign_packages_are_touched_in_one_place(foreign: str) -> None:
    strays = [
        str(path.relative_to(PACKAGE))
        for module, path in MODULES.items()
        if foreign in {name.split(".")[0] for name in imports_of(module)}
        and not path.relative_to(PACKAGE).as_posix().startswith(ONLY_IN[foreign])
    ]
    assert strays == []


def test_nothing_unpickles() -> None:
    """A model file is hostile input."""
    for module in MODULES:
        assert not NOWHERE & {name.split(".")[0] for name in imports_of(module)}, module


def test_the_table_has_no_circle() -> None:
    order: list[str] = []
    left = dict(MAY_IMPORT)
    while left:
        ready = [name for name, allowed in left.items() if not allowed & left.keys()]
        assert ready, f"these parts may import each other: {sorted(left)}"
        order += ready
        left = {name: allowed for name, allowed in left.items() if name not in ready}
    assert order.index("graph") < order.index("counting") < order.index("operators")
    assert order.index("facts") < order.index("operators") < order.index("frontends")
    assert order.index("leakpath") < order.index("attack") < order.index("confirm")
    assert order.index("confirm") < order.index("pipeline") < order.index("cli")


def test_the_plan_fits_on_a_page() -> None:
    """The rules of the house: few rooms, none crowded, nothing loose at the root."""
    assert len(MAY_IMPORT) <= 25
    loose = {path.stem for path in PACKAGE.glob("*.py")}
    assert loose <= {"__init__", "__main__", "graph", "findings", "errors"}
    for folder in {path.parent for path in MODULES.values()}:
        assert len(list(folder.glob("*.py"))) <= 20, folder
    assert "confirm" not in MAY_IMPORT["attack"]


def test_the_reader_sees_every_kind_of_import() -> None:
    """What the tests above rest on, on a module made up for it."""
    source = """
import torch.nn as nn
from leakaudit import graph, __version__
from . import phases
from ..counting.bound import layer_bound
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from leakaudit.pipeline.audit import audit
def late():
    from leakaudit.rules.rule import Rule
    import importlib
    importlib.import_module("onnxruntime")
    __import__("pickle")
"""
    assert set(imports(source, "leakaudit.equations.made_up", is_package=False)) == {
        "torch.nn",
        "leakaudit.graph",
        "leakaudit",
        "leakaudit.equations.phases",
        "leakaudit.counting.bound",
        "typing",
        "leakaudit.pipeline.audit",
        "leakaudit.rules.rule",
        "importlib",
        "onnxruntime",
        "pickle",
    }
    assert set(imports("from .bound import x", "leakaudit.counting", is_package=True)) == {
        "leakaudit.counting.bound"
    }
