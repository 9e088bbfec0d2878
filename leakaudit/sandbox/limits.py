"""What a model file may cost: sizes, counts, nesting, memory, time. Every limit can be changed."""

from __future__ import annotations

import difflib
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

from leakaudit.errors import AuditError, UsageError

if sys.platform != "win32":
    import resource

_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS_OF_BYTES: Final = {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest model that is read. The defaults are far above real models.

    Attributes:
        file_bytes: Size of a model file. ONNX files end at 2 GB anyway, the most of a protobuf.
        external_bytes: Size of all external data that an ONNX file refers to.
        members: Files in a zip archive.
        unpacked_bytes: Size of all of them unpacked.
        ratio: How many times larger than packed one of them may be (1 MiB is always allowed).
        json_bytes: Size of one JSON document.
        nodes: Nodes of a network, those of subgraphs and functions included.
        nesting: How deep subgraphs may stand in subgraphs.
        axes: Axes of a tensor.
        elements: Numbers in a tensor.
        memory_bytes: What reading one file may add to the process, and all that one helper
            process may use (address space; only where the system has RLIMIT_AS).
        seconds: Time for reading one file, and for one helper process.
    """

    file_bytes: int = 64 * 2**30
    external_bytes: int = 64 * 2**30
    members: int = 100_000
    unpacked_bytes: int = 64 * 2**30
    ratio: int = 100
    json_bytes: int = 256 * 2**20
    nodes: int = 200_000
    nesting: int = 32
    axes: int = 32
    elements: int = 2**34
    memory_bytes: int = 8 * 2**30
    seconds: int = 300

    def require(self, name: str, value: int, target: str, what: str) -> None:
        """Check one figure of a file.

        Args:
            name: The limit.
            value: The figure.
            target: The file as the user named it.
            what: What the figure is of, e.g. "the number of its nodes".

        Raises:
            AuditError: The figure is above the limit.
        """
        limit = getattr(self, name)
        if value > limit:
            raise self.exceeded(name, target, f"{what} is {value}", raise_to=value)

    def exceeded(
        self, name: str, target: str, reason: str, raise_to: int | None = None
    ) -> AuditError:
        """The error that says which limit stopped the audit, and how to raise it."""
        limit = getattr(self, name)
        return AuditError(
            target,
            f"{reason}, and the limit {name} is {limit}",
            f"if you trust the file, raise it with --limit {name}={raise_to or 2 * limit}",
        )

    def start(self, target: str) -> Deadline:
        """The clock of reading one file."""
        return Deadline(self, target, time.monotonic() + self.seconds)

    def changed(self, settings: Mapping[str, int]) -> Limits:
        """These limits with some of them changed.

        Raises:
            UsageError: There is no limit of that name, or its value is below 1.
        """
        for name, value in settings.items():
            if name not in LIMITS:
                close = difflib.get_close_matches(name, LIMITS, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(LIMITS)}"
                raise UsageError(f"there is no limit {name!r}; {hint}")
            if value < 1:
                raise UsageError(f"the limit {name} is {value}; it must be at least 1")
        return replace(self, **settings)


LIMITS: Final = tuple(field.name for field in fields(Limits))


@dataclass(frozen=True, slots=True)
class Deadline:
    """When reading a file has to be done, in seconds of the monotonic clock."""

    limits: Limits
    target: str
    at: float

    def check(self) -> None:
        """Go on only while there is time.

        Raises:
            AuditError: There is none left.
        """
        if time.monotonic() > self.at:
            raise self.passed()

    def passed(self) -> AuditError:
        """The error of a file that took too long."""
        reason = f"reading it takes more than {self.limits.seconds} seconds"
        return self.limits.exceeded("seconds", self.target, reason)


def parse_limits(texts: Iterable[str], base: Limits | None = None) -> Limits:
    """Limits from `NAME=VALUE` texts; sizes may be written as 4GiB, numbers as 500k.

    Raises:
        UsageError: A text is not of that form.
    """
    settings: dict[str, int] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        number = _number(value)
        if not equals or number is None:
            raise UsageError(f"--limit {text}: write NAME=VALUE, e.g. --limit memory_bytes=16GiB")
        settings[name.strip().replace("-", "_")] = number
    return (base or Limits()).changed(settings)


def _number(text: str) -> int | None:
    match = re.fullmatch(r"\s*([0-9]{1,18})\s*([A-Za-z]*)\s*", text)
    if match is None:
        return None
    factor = (_UNITS | _UNITS_OF_BYTES).get(match[2].lower())
    return None if factor is None else int(match[1]) * factor


@dataclass(slots=True)
class _Bound:
    """The bound of the process, which threads that read files at the same time share."""

    readers: int = 0
    restored: tuple[int, int] | None = None


_bound = _Bound()
_lock = threading.Lock()


@contextmanager
def bounded_memory(limits: Limits, target: str) -> Iterator[None]:
    """Keep the address space from growing by more than `memory_bytes` while a file is read.

    Parsers allocate what a file asks for; beyond the bound they raise MemoryError. Systems other
    than Linux do not say how large the process is now: there the bound is not set.

    Raises:
        AuditError: The memory did not suffice.
    """
    with _lock:
        _bound.readers += 1
        if _bound.readers == 1:
            _bound.restored = _bound_address_space(limits.memory_bytes)
    try:
        yield
    except MemoryError as error:
        raise limits.exceeded("memory_bytes", target, "reading it takes more memory") from error
    finally:
        with _lock:
            _bound.readers -= 1
            if _bound.readers == 0 and _bound.restored is not None:
                resource.setrlimit(resource.RLIMIT_AS, _bound.restored)
                _bound.restored = None


def _bound_address_space(allowed: int) -> tuple[int, int] | None:
    """Lower the soft limit; the pair to restore, None where nothing was changed."""
    if sys.platform == "win32" or not _STATM.exists():
        return None
    pages = int(_STATM.read_text(encoding="ascii").split()[0])
    bound = pages * resource.getpagesize() + allowed
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if any(limit != resource.RLIM_INFINITY and limit <= bound for limit in (soft, hard)):
        return None
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
    return soft, hard
