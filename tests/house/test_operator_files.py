"""Adding an operator touches few files: counted over all operators, from the code itself."""

from __future__ import annotations

import ast
from statistics import median

from places import PACKAGE

from leakaudit import operators

MOST, MEDIAN = 8, 5


def named(source: str) -> set[str]:
    """The operators that code names: imported, looked up in the module of operators, or defined.

    `ast.Add` and `nn.Identity` are other things of the same name.
    """
    tree = ast.parse(source)
    modules: set[str] = set()
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(origin), names=aliases) if origin.startswith(
                "leakaudit"
            ):
                for alias in aliases:
                    found.add(alias.name)
                    modules.add(alias.asname or alias.name)
            case ast.ClassDef(name=name):
                found.add(name)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in modules:
                found.add(name)
    return found


def test_an_operator_is_named_in_few_files() -> None:
    used = {
        path.relative_to(PACKAGE).as_posix(): named(path.read_text(encoding="utf-8"))
        for path in PACKAGE.rglob("*.py")
    }
    files = {
        name: sorted(path for path, found in used.items() if name in found)
        for name in set(operators.__all__) - {"Operator", "Activation", "Unsupported"}
    }
    assert len(files) > 40
    worst = max(files, key=lambda name: len(files[name]))
    assert len(files[worst]) <= MOST, f"{worst} is named in {files[worst]}"
    assert median(map(len, files.values())) <= MEDIAN


def test_every_way_to_name_an_operator_is_seen_and_no_other_name() -> None:
    source = """
import ast
from leakaudit.operators import Conv
from leakaudit import operators as ops
for kind in [ops.Linear, ast.Add]:
    f(kind, "Tanh")
class Mish(Activation): ...
"""
    operators_named = named(source)
    assert {"Conv", "Linear", "Mish"} <= operators_named
    assert not {"Add", "Tanh"} & operators_named
