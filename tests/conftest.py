"""What tests of the command line share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from places import SAMPLES


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two models, entered. The batch axis of both files is open."""
    (tmp_path / "models").mkdir()
    for name in ("lenet_main", "cnn6_d"):
        shutil.copy(SAMPLES / f"{name}.onnx", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path
