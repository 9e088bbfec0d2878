"""What a measurement was made on, and how much memory and time it took."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
PACKAGES = ("leakaudit", "torch", "numpy", "onnx", "onnxruntime", "sympy")


def environment() -> dict[str, Any]:
    """Machine, versions and date; nothing that names the machine, its user or its folders.

    `load` is the number of processes that wanted a core in the minute before: above 0.5 or so,
    others were at work and times are upper bounds.
    """
    import torch

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "memory_gib": _memory(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": load,
        "versions": versions,
    }


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> float:
    if not hasattr(os, "sysconf"):
        return 0.0
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


@dataclass(frozen=True, slots=True)
class Measured:
    """Time and memory of one call. `peak_bytes`: resident memory above that before the call, at its
    highest; None where the system does not tell (only Linux does)."""

    seconds: float
    peak_bytes: int | None


def measure(function: Callable[[], T]) -> tuple[T, Measured]:
    """Call a function once.

    Resident memory counts what torch and BLAS allocate, which tracemalloc does not see. Linux keeps
    its high-water mark per process and lets the process reset it, so that all rows of a comparison
    can run in one process.
    """
    before = _reset_peak()
    started = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - started
    peak = None if before is None else _status("VmHWM")
    used = None if peak is None or before is None else max(0, peak - before)
    return result, Measured(seconds, used)


def _reset_peak() -> int | None:
    """Set the high-water mark back to the memory in use now, and return that."""
    if sys.platform != "linux":
        return None
    with suppress(AttributeError):  # only glibc has it
        # What earlier calls freed but malloc still holds would hide what this one takes.
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return _status("VmRSS")


def _status(field: str) -> int | None:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None
