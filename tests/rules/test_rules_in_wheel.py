"""The rules ship inside the wheel, and the installed package finds them there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from places import ROOT

from leakaudit.rules.registry import BUILTIN_IDS


def _pip(*arguments: str | Path) -> None:
    quiet = ["--no-deps", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", *map(str, arguments), *quiet]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_installed_wheel_lists_the_rules(tmp_path: Path) -> None:
    _pip("wheel", ROOT, "--no-build-isolation", "--wheel-dir", tmp_path)
    (wheel,) = tmp_path.glob("leakaudit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {
            Path(name).name: archive.read(name)
            for name in archive.namelist()
            if name.startswith("leakaudit/rules/builtin/") and name.endswith(".toml")
        }
    assert shipped == {path.name: path.read_bytes() for path in (ROOT / "rules").glob("*.toml")}
    site = tmp_path / "site"
    _pip("install", wheel, "--target", site)
    program = (
        "from leakaudit.rules.registry import *\n"
        "print(builtin_folder()); print(*(rule.id for rule in load_rules()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,  # away from the checkout, which must not be needed
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    folder, ids = done.stdout.splitlines()
    assert Path(folder) == (site / "leakaudit" / "rules" / "builtin").resolve()
    assert tuple(ids.split()) == BUILTIN_IDS
