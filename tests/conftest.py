"""What the tests share."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Read when torch and BLAS are first loaded, here and in the processes that tests start. The tensors
# are tiny, and test processes run side by side: more threads would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Reports are as wide as they are where there is no terminal; pytest-xdist names one of 80 columns.
os.environ.pop("COLUMNS", None)

from hypothesis import HealthCheck, settings
from lasting_helper import one_helper_for_all_files
from places import SAMPLES

# How long an example takes says how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(autouse=True)
def _short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that does not find the input takes all the time it has; its own tests set theirs."""
    if "leakaudit.confirm.beyond" in sys.modules:
        monkeypatch.setattr("leakaudit.confirm.beyond.SEARCH_SECONDS", 2.0)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two models, entered. The batch axis of both files is open."""
    (tmp_path / "models").mkdir()
    for name in ("lenet_main", "cnn6_d"):
        shutil.copy(SAMPLES / f"{name}.onnx", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True, scope="session")
def _one_helper_for_all_files() -> Iterator[None]:
    with one_helper_for_all_files():
        yield
