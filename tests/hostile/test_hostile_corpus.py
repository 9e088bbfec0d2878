"""Malformed files: one line, exit code 3, nothing run, nothing written, little time and memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from corpus import Case, all_cases

from leakaudit.cli.main import main

CASES = all_cases()
# One of each kind is enough where a process costs a second.
IN_PROCESSES = [
    "onnx: fifo",
    "onnx: link to a device",
    "onnx: 3000 nested graphs",
    "onnx: a chain of 1500 functions that ends nowhere",
    "onnx: external data by a link out",
    "pt2: pickle",
    "pt2: torch.save of a module",
    "pt2: program of 100000 open brackets",
    "pt2: a program of 100 MB of blanks",
    "pt2: a directory of 600000 members",
]
COMMAND = [sys.executable, "-m", "leakaudit", "check", "--no-confirm"]
SECONDS, MEMORY = 2.0, 2**30


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies in a folder, links not followed: size and time of the last change."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, so that nothing can be written beside the model unseen."""
    folder = tmp_path / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert list(folder.iterdir()) == []


def require_one_line(code: int, out: str, err: str) -> None:
    lines = err.splitlines()
    assert (code, len(lines)) == (3, 1), err
    assert lines[0].startswith("leakaudit: ")
    # Reason and remedy, and nothing that a terminal would obey.
    assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f]+; [^\x00-\x1f\x7f-\x9f]+", lines[0])
    assert "Traceback" not in out + err
    assert "\x1b" not in out


def test_there_are_enough_of_each_kind() -> None:
    assert len(CASES) >= 200
    assert sum(case.name.startswith("onnx") for case in CASES) >= 100
    assert sum(case.name.startswith("pt2") for case in CASES) >= 100
    for word in ("truncated", "flipped", "cycle", "missing", "2^62", "zips", "link", "pickle"):
        assert sum(word in case.name for case in CASES) >= 2, word


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_malformed_file_is_refused_in_one_line(
    case: Case, tmp_path: Path, working_folder: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    target = case.write(folder)
    before = listing(folder)
    result = CliRunner().invoke(main, ["check", str(target), "--no-confirm", "--no-progress"])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    require_one_line(result.exit_code, result.stdout, result.stderr)
    assert listing(folder) == before


def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"PK")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads every file")
    result = CliRunner().invoke(main, ["check", str(path), "--no-confirm"])
    require_one_line(result.exit_code, result.stdout, result.stderr)
    assert "Permission denied" in result.stderr


def test_folder_of_malformed_files_names_each(tmp_path: Path) -> None:
    """One bad file does not keep the others from being looked at."""
    chosen = [case for case in CASES if case.name.startswith(("pt2: a size", "onnx: group"))]
    for number, case in enumerate(chosen):
        Path(tmp_path / str(number)).mkdir()
        case.write(tmp_path / str(number))
    result = CliRunner().invoke(main, ["check", str(tmp_path), "--no-confirm"])
    assert result.exit_code == 3
    assert len(result.stderr.splitlines()) == len(chosen) > 20


def in_process(target: Path, folder: Path) -> tuple[int, str, str, float, int]:
    """Run the tool on its own; exit code, output, errors, processor seconds and peak memory."""
    script = (
        "import resource, subprocess, sys; "
        "r = subprocess.run(sys.argv[1:], capture_output=True, timeout=60); "
        "u = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "sys.stdout.buffer.write(r.stdout + b'\\0' + r.stderr + b'\\0'); "
        "print(r.returncode, u.ru_utime + u.ru_stime, u.ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *COMMAND, str(target)],
        cwd=folder,
        capture_output=True,
        check=True,
        timeout=90,
    )
    out, err, figures = done.stdout.decode().rsplit("\0", 2)
    code, seconds, kilobytes = figures.split()
    unit = 1 if sys.platform == "darwin" else 1024
    return int(code), out, err, float(seconds), int(kilobytes) * unit


@pytest.mark.parametrize("name", IN_PROCESSES)
def test_malformed_file_in_a_process_of_its_own(
    name: str, tmp_path: Path, working_folder: Path
) -> None:
    (case,) = (case for case in CASES if case.name == name)
    code, out, err, _, _ = in_process(case.write(tmp_path), working_folder)
    require_one_line(code, out, err)


@pytest.fixture(scope="module")
def start_up(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Processor seconds of an audit of next to nothing."""
    folder = tmp_path_factory.mktemp("start")
    path = folder / "model.onnx"
    path.touch()
    return min(in_process(path, folder)[3] for _ in range(3))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_malformed_file_takes_little_time_and_memory(
    case: Case, tmp_path: Path, working_folder: Path, start_up: float
) -> None:
    """Processor time, helper processes included: the clock on the wall depends on the machine."""
    code, out, err, seconds, peak = in_process(case.write(tmp_path), working_folder)
    require_one_line(code, out, err)
    assert seconds - start_up < SECONDS
    assert peak < MEMORY
