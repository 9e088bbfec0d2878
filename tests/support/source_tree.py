"""A copy of this checkout's sources, as a place to install from."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

# Whatever else lies in a checkout (environments, caches, build outputs) stays behind.
PARTS = ["leakaudit", "rules", "pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml"]


def copy_source(folder: Path) -> None:
    """Copy what an installation needs into `folder`, which is made.

    Works the same in a clone, in an export without history, and with uncommitted changes.
    """
    folder.mkdir(parents=True)
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
            )
        else:
            shutil.copy(source, folder / name)


def require_package_index(folder: Path) -> None:
    """Skip the test where no package index answers; one small package is asked for."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "tabulate"]
    done = subprocess.run(
        [*command, "--dest", folder], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        pytest.skip("no package index to install from")
