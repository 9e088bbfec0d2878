"""Ctrl-C while the program is being imported ends it as it does later: one line, exit code 130."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import NoReturn

from leakaudit.errors import INTERRUPTED


@contextlib.contextmanager
def stopped_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process without an exception.

    An exception could be swallowed by whatever is imported at that moment.
    """
    before = signal.getsignal(signal.SIGINT)
    # Another handler stands where Ctrl-C is to be ignored; signals are the main thread's.
    ours = before is signal.default_int_handler
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(*_signal: object) -> NoReturn:
    with contextlib.suppress(OSError):
        os.write(2, b"leakaudit: stopped\n")
    os._exit(INTERRUPTED)
