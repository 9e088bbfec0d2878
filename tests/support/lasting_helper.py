"""A helper process that outlives the file it was started for.

Each file that is read gets a helper of its own. That keeps hostile files apart; in a test of
something else, the start of the process costs more than all that the test does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from leakaudit.frontends.onnx import native
from leakaudit.sandbox.helper import Helper
from leakaudit.sandbox.inside import Parts
from leakaudit.sandbox.limits import Limits

_WORKER = native._WORKER
_LASTS = 120.0  # seconds; its own clock ends it at 300


class LastingHelper(Helper):
    """Joins the idle ones instead of ending."""

    def __init__(
        self, module: str, packages: Sequence[str], limits: Limits, idle: list[LastingHelper]
    ) -> None:
        super().__init__(module, packages, limits)
        self._idle = idle
        self._started = time.monotonic()
        self._unanswered = 0

    def send(self, parts: Sequence[bytes]) -> None:
        self._unanswered += 1
        super().send(parts)

    def receive(self) -> Parts:
        try:
            return super().receive()
        finally:
            self._unanswered -= 1

    @property
    def usable(self) -> bool:
        """It is young, alive, and owes no answer."""
        young = time.monotonic() < self._started + _LASTS
        return young and not self._unanswered and self._process.poll() is None

    def close(self) -> None:
        self._idle.append(self)

    def end(self) -> None:
        super().close()


@contextmanager
def one_helper_for_all_files() -> Iterator[None]:
    """Let files share the helper that runs onnx's native code.

    Whoever sets limits still gets a helper of its own: they are the limits of the process. So do
    tests that put another worker in its place.
    """
    idle: list[LastingHelper] = []

    def helper(module: str, packages: Sequence[str], limits: Limits) -> Helper:
        if (module, limits) != (_WORKER, Limits()):
            return Helper(module, packages, limits)
        while idle:
            found = idle.pop()
            if found.usable:
                return found
            found.end()
        return LastingHelper(module, packages, limits, idle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "Helper", helper)
        try:
            yield
        finally:
            for left in idle:
                left.end()
