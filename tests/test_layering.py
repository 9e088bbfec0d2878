"""The architecture: which part imports which, and where foreign packages may be touched.

Every import statement counts, also those in functions and under TYPE_CHECKING: a type that is
needed is a dependency.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "leakaudit"

EVERYTHING_BELOW = {
    "graph",
    "limits",
    "errors",
    "findings",
    "output",
    "frontends",
    "counting",
    "leakpath",
    "rules",
    "rconv",
    "report",
}

# Part -> parts it may import, besides itself and the bare package with its version number.
MAY_IMPORT: dict[str, set[str]] = {
    "graph": {"errors"},
    "errors": set(),
    "limits": {"errors"},
    "isolated": set(),
    "isolate": {"isolated", "limits"},
    "findings": set(),
    "output": {"errors"},
    "frontends": {"graph", "errors", "limits", "isolate", "isolated"},
    "counting": {"graph", "findings"},
    "leakpath": {"graph", "counting", "findings"},
    "rules": {"counting", "leakpath", "findings", "errors"},
    "rconv": {"graph", "counting", "leakpath", "findings", "errors", "limits", "isolate"},
    "report": {"findings", "errors"},
    "targets": set(),
    "config": {"findings", "errors", "limits", "targets"},
    "suppress": {"findings", "targets"},
    "baseline": {"findings", "errors", "targets"},
    "per_target": {"findings", "frontends", "rules", "targets"},
    "advise": EVERYTHING_BELOW,
    "explain": EVERYTHING_BELOW,
    "audit_facts": EVERYTHING_BELOW,
    "gate": {"findings", "suppress"},
    "audit": EVERYTHING_BELOW | {"audit_facts", "per_target", "targets"},
    "work": {"audit", "errors", "findings", "frontends"},
    "cluster": {"audit", "errors", "work"},
    "parallel": {"audit", "cluster", "errors", "findings", "work"},
    "bench": EVERYTHING_BELOW | {"audit", "config"},
    "cli_options": {"frontends", "limits"},
    "cli_output": {"errors", "report"},
    "cli_reports": {"findings", "output", "report"},
    "cli_config": {"config", "errors", "findings", "per_target", "rules", "targets"},
    "cli_completion": {"errors", "frontends", "rules"},
    "cli_advise": EVERYTHING_BELOW
    | {
        "advise",
        "audit",
        "cli_completion",
        "cli_config",
        "cli_options",
        "cli_output",
        "per_target",
    },
    "cli_baseline": EVERYTHING_BELOW
    | {
        "audit",
        "baseline",
        "cli_completion",
        "cli_config",
        "cli_options",
        "cli_output",
        "gate",
        "suppress",
    },
    "cli_init": {"cli_config", "config", "errors", "output", "report"},
    "cli": EVERYTHING_BELOW
    | {
        "advise",
        "audit",
        "baseline",
        "bench",
        "cli_advise",
        "cli_baseline",
        "cli_completion",
        "cli_config",
        "cli_init",
        "cli_options",
        "cli_output",
        "cli_reports",
        "config",
        "explain",
        "gate",
        "parallel",
        "per_target",
        "suppress",
    },
    "__main__": {"cli"},
    "": set(),  # leakaudit/__init__.py
}

# Foreign package -> the files that may touch it; a trailing slash names a folder.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "torch": ("rconv/", "bench/", "frontends/module.py"),
    "onnxruntime": ("rconv/onnx_runner.py",),
    "onnx": ("frontends/onnx_",),
    "google": ("frontends/onnx_",),  # protobuf
    "PIL": ("report/images.py", "rconv/probes.py", "bench/"),
    # It pickles, our own objects between our own processes: never what comes from a model file.
    "joblib": ("parallel.py", "cluster.py"),
    "dask": ("cluster.py",),
    "distributed": ("cluster.py",),
    "click": ("cli", "bench/", "report/"),  # report: terminal styles
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
    """`leakaudit.graph.operators.base` belongs to `graph`, `leakaudit` itself to the empty part."""
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
    assert order.index("graph") < order.index("counting") < order.index("leakpath")
    assert order.index("leakpath") < order.index("rules") < order.index("audit")
    assert order.index("audit") < order.index("cli")


def test_the_reader_sees_every_kind_of_import() -> None:
    """What the tests above rest on, on a module made up for it."""
    source = """
import torch.nn as nn
from leakaudit import graph, __version__
from . import phases
from ..counting.bound import layer_bound
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from leakaudit.audit import audit
def late():
    from leakaudit.rules.rule import Rule
    import importlib
    importlib.import_module("onnxruntime")
    __import__("pickle")
"""
    assert set(imports(source, "leakaudit.rconv.made_up", is_package=False)) == {
        "torch.nn",
        "leakaudit.graph",
        "leakaudit",
        "leakaudit.rconv.phases",
        "leakaudit.counting.bound",
        "typing",
        "leakaudit.audit",
        "leakaudit.rules.rule",
        "importlib",
        "onnxruntime",
        "pickle",
    }
    assert set(imports("from .bound import x", "leakaudit.counting", is_package=True)) == {
        "leakaudit.counting.bound"
    }
