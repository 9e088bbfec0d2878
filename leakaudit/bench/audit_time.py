"""`bench audit`: how long an audit takes, as the command line runs it, against bare imports."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from leakaudit.bench.machine import environment
from leakaudit.bench.results_io import ResultFile, as_table
from leakaudit.errors import UsageError

MODEL = "lenet_main.onnx"
# The imports that each command cannot do without, alone in a fresh interpreter.
STATIC = "import onnx, sympy"
CONFIRM = "import torch, onnx, onnxruntime, sympy"


def cases(model: Path) -> dict[str, tuple[list[str], str]]:
    """Per case the arguments of `leakaudit`, and the imports that it is compared with."""
    return {
        "check --no-confirm": (["check", str(model), "--no-confirm"], STATIC),
        "check (confirms)": (["check", str(model), "--confirm"], CONFIRM),
        "rules": (["rules"], "import sympy"),
    }


def run_audit(
    models: Path, repeats: int, output: Path | None, progress: Callable[[str], None]
) -> ResultFile:
    """Time every case and its imports, alternating so that other load falls on both.

    Raises:
        UsageError: The model is missing, or a command fails.
    """
    model = models / MODEL
    if not model.is_file():
        raise UsageError(f"{model}: there is no such file; --models names its folder")
    settings = {"model": MODEL, "repeats": repeats}
    results = ResultFile(output, "audit", environment(), settings)
    for name, (arguments, imports) in cases(model).items():
        command = [sys.executable, "-m", "leakaudit", *arguments]
        bare = [sys.executable, "-c", imports]
        audits: list[float] = []
        references: list[float] = []
        for repeat in range(repeats + 1):
            progress(f"{name}: {repeat} of {repeats}")
            # 1 says that the audit found something.
            pair = timed(command, (0, 1)), timed(bare, (0,))
            if repeat:  # the first one filled the file cache
                audits.append(pair[0])
                references.append(pair[1])
        results.add(
            {
                "case": name,
                "seconds": statistics.median(audits),
                "reference": imports,
                "reference_seconds": statistics.median(references),
                "ratio": statistics.median(a / b for a, b in zip(audits, references, strict=True)),
                "all_seconds": audits,
                "all_reference_seconds": references,
            }
        )
    results.finish()
    return results


def timed(command: list[str], expected: tuple[int, ...]) -> float:
    """Wall-clock seconds of a command.

    Raises:
        UsageError: It ends with another exit code than the expected ones.
    """
    started = time.perf_counter()
    # The commands are made up of this module's constants and a path, without a shell.
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    seconds = time.perf_counter() - started
    if result.returncode not in expected:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise UsageError(f"a timed command ended with {result.returncode}: {last}")
    return seconds


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text."""
    columns = (
        ("leakaudit", "{case}"),
        ("seconds", "{seconds:.2f}"),
        ("against", "{reference}"),
        ("seconds", "{reference_seconds:.2f}"),
        ("ratio", "{ratio:.2f}"),
    )
    table = as_table(rows, columns)
    return f"{table}\n\nMedians over fresh interpreters; the ratio is the median of the pairs'.\n"
