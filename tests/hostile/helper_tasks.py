"""What helper processes are made to do in tests: everything that native code can do wrong."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def handle(parts: list[bytes]) -> list[bytes]:
    task, *rest = parts
    match task:
        case b"echo":
            return rest
        case b"raise":
            raise ArithmeticError("quotes the file: \x1b[31m")
        case b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"exit":
            os._exit(7)
        case b"sleep":
            time.sleep(600)
        case b"compute":
            while True:
                pass
        case b"allocate":
            return [str(len(bytearray(int(rest[0])))).encode()]
        case b"write":
            Path(os.fsdecode(rest[0])).write_bytes(b"written")
        case b"print":
            os.write(1, b"garbage on the standard output")
            return [b"printed"]
        case b"environment":
            return [name.encode() for name in os.environ]
        case b"descriptors":
            found = []
            for number in range(3, 64):
                try:
                    os.fstat(number)
                except OSError:
                    continue
                found.append(str(number).encode())
            return found
    return []
