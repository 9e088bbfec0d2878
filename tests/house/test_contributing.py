"""docs/contributing.md names files that exist, and an operator is where it says."""

from __future__ import annotations

import re

import pytest
from places import PACKAGE, ROOT

GUIDE = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
PATHS = sorted(set(re.findall(r"`((?:leakaudit|tests|rules)/[\w/.]+)`", GUIDE)))


def test_it_names_many_files() -> None:
    assert len(PATHS) > 20


@pytest.mark.parametrize("path", PATHS)
def test_every_file_it_names_is_there(path: str) -> None:
    assert path == "rules/LA013.toml" or (ROOT / path).exists()  # the one that a reader would add


def test_the_operator_it_walks_through_touches_the_files_it_says() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "Softsign" in path.read_text(encoding="utf-8")
    }
    assert found == {
        "leakaudit/operators/activation.py",
        "leakaudit/execute/activation.py",
        "leakaudit/frontends/onnx/operators/activation.py",
    }
