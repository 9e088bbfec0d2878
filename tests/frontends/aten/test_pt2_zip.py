"""The zip of an export archive: its file is closed again, whatever comes of it."""

from __future__ import annotations

import gc
import warnings
import zipfile
from pathlib import Path

import pytest

from leakaudit.errors import AuditError
from leakaudit.frontends.aten.schema import FormatError
from leakaudit.frontends.aten.zip import open_zip
from leakaudit.sandbox.limits import Limits


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as members:
        members.writestr("model/models/model.json", b"{}")
        members.writestr("model/version", b"0")
    return path


@pytest.mark.parametrize("kind", ["good", "truncated", "leading bytes", "large directory"])
def test_the_file_is_closed(archive: Path, kind: str) -> None:
    if kind == "truncated":
        archive.write_bytes(archive.read_bytes()[:-30])
    elif kind == "leading bytes":
        archive.write_bytes(b"x" * 9 + archive.read_bytes())
    limits = Limits(members=0) if kind == "large directory" else Limits()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcome = opened(archive, limits)
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
    assert outcome == ("read" if kind == "good" else "refused")


def opened(path: Path, limits: Limits) -> str:
    try:
        with open_zip(path, str(path), limits) as members:
            assert members.read("model/version") == b"0"
    except (FormatError, AuditError):
        return "refused"
    return "read"
