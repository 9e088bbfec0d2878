"""Native code on untrusted bytes runs in a helper process: its crash is a sentence, not ours.

A fresh interpreter, not a fork: nothing of ours is in its memory, and no thread's lock is held.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from leakaudit.sandbox.inside import FAILED, Parts, read_message, write_message
from leakaudit.sandbox.limits import Limits

_BOOT = "import sys; sys.path += sys.argv[4:]; from leakaudit.sandbox.inside import main; main()"
_KEPT = ("LD_LIBRARY_PATH", "OMP_NUM_THREADS", "PATH", "SYSTEMROOT", "TEMP", "TMPDIR")
_MAX_REPLY = 2**31


class HelperFailed(Exception):
    """The helper's work raised an error; the text is the error's name. The helper lives on."""


class HelperDied(Exception):
    """The helper is gone; the text says why, as part of a sentence."""


class Helper:
    """A process that answers requests, started at once and limited in memory and time.

    Args:
        module: The module whose `handle` answers.
        packages: Installed packages that it imports.
        limits: Its memory and its time, from the start on.

    Raises:
        HelperDied: It cannot be started.
    """

    def __init__(self, module: str, packages: Sequence[str], limits: Limits) -> None:
        self._timed_out = False
        self._limits = limits
        command = [
            # -I: neither the working folder nor PYTHON* variables say what is imported.
            *(sys.executable, "-I", "-S", "-c", _BOOT),
            *(module, str(limits.memory_bytes), str(limits.seconds)),
            *_folders(("leakaudit", *packages)),
        ]
        try:
            self._process = subprocess.Popen(  # noqa: S603 (our own interpreter, our own code)
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
            )
        except OSError as error:
            raise HelperDied(f"cannot be started ({error.strerror})") from error
        self._clock = threading.Timer(limits.seconds, self._stop)
        self._clock.daemon = True
        self._clock.start()

    def __enter__(self) -> Helper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, parts: Sequence[bytes]) -> None:
        """Hand over a request; `receive` waits for its reply.

        Raises:
            HelperDied: The helper is gone.
        """
        if self._process.stdin is None:
            raise HelperDied("has no input")
        try:
            write_message(self._process.stdin, parts)
        except (OSError, ValueError) as error:  # a broken pipe; one that was closed
            raise self._died() from error

    def receive(self) -> Parts:
        """Return the reply to the request before.

        Raises:
            HelperFailed: The work raised an error.
            HelperDied: The helper crashed, or took too much memory or time.
        """
        if self._process.stdout is None:
            raise HelperDied("has no output")
        try:
            reply = read_message(self._process.stdout, _MAX_REPLY)
        except ValueError as error:
            raise HelperDied("answered nonsense") from error
        if not reply:
            raise self._died()
        if reply[0] == FAILED:
            raise HelperFailed(reply[-1].decode(errors="replace"))
        return reply[1:]

    def ask(self, parts: Sequence[bytes]) -> Parts:
        """Send a request and return its reply; raises as these do."""
        self.send(parts)
        return self.receive()

    def close(self) -> None:
        """End the helper, whatever it is doing."""
        self._clock.cancel()
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # unsent bytes for a process that is gone
                    continue
        self._process.wait()

    def _stop(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _died(self) -> HelperDied:
        code = self._process.wait()
        if self._timed_out or (sys.platform != "win32" and code == -signal.SIGXCPU):
            return HelperDied(f"took more than {self._limits.seconds} seconds")
        if code < 0:
            return HelperDied(f"crashed ({_signal_name(-code)})")
        return HelperDied(f"ended with code {code}, allowed {self._limits.memory_bytes} bytes")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _folders(packages: Sequence[str]) -> list[str]:
    """Where these packages are installed, each folder once."""
    specs = [importlib.util.find_spec(name) for name in packages]
    places = (place for spec in specs if spec for place in spec.submodule_search_locations or ())
    return list(dict.fromkeys(str(Path(place).resolve().parent) for place in places))
