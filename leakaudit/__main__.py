"""`leakaudit` and `python -m leakaudit`."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NoReturn


def main() -> None:
    """Run the command line. Ctrl-C while it is still being imported ends as it does later."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # it is not where Ctrl-C is to be ignored
        signal.signal(signal.SIGINT, _stop)
    from leakaudit.cli.main import main as run

    signal.signal(signal.SIGINT, before)
    run()


def _stop(*_signal: object) -> NoReturn:
    """Exit at once: an exception could be swallowed by whatever is imported at that moment."""
    with contextlib.suppress(OSError):
        os.write(2, b"leakaudit: stopped\n")
    os._exit(130)


if __name__ == "__main__":
    main()
