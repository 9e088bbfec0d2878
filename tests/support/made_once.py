"""What is expensive to make is made once for all processes of a test run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None], timeout: float = 600
) -> Path:
    """The folder of this name that the whole run shares.

    The first process that asks makes it and lets `make` fill it; the others wait. What `make`
    raises, a skip too, everyone who asks gets to see: the next one tries again.
    """
    run = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent  # each worker has a folder of its own in that of the run
    folder, finished = run / name, run / f"{name}.finished"
    with FileLock(run / f"{name}.lock", timeout=timeout):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            finished.touch()
    return folder
