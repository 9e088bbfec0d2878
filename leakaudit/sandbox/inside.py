"""The inside of a helper process: it limits itself, then answers requests until its input ends.

Runs in an interpreter without site-packages' start-up code, and imports next to nothing, so that
starting one takes some 30 ms. `helper.py` is the outside.
"""

from __future__ import annotations

import importlib
import os
import struct
import sys
from collections.abc import Callable, Sequence
from typing import IO

Parts = list[bytes]
Handler = Callable[[Parts], Sequence[bytes]]

MAX_PARTS = 1 << 20
OK, FAILED = b"ok", b"failed"
_SIZE = struct.Struct("<Q")


def write_message(stream: IO[bytes], parts: Sequence[bytes]) -> None:
    """Write a list of byte strings: their number, then each with its length."""
    pieces = [_SIZE.pack(len(parts))]
    for part in parts:
        pieces += (_SIZE.pack(len(part)), part)
    stream.write(b"".join(pieces))
    stream.flush()


def read_message(stream: IO[bytes], max_bytes: int) -> Parts | None:
    """Read what `write_message` wrote; None where the stream ended.

    Raises:
        ValueError: It is longer than `max_bytes`: the other side is not what it should be.
    """
    head = stream.read(_SIZE.size)
    if len(head) < _SIZE.size:
        return None
    (count,) = _SIZE.unpack(head)
    if count > MAX_PARTS:
        raise ValueError(f"{count} parts")
    parts: Parts = []
    left = max_bytes
    for _ in range(count):
        head = stream.read(_SIZE.size)
        if len(head) < _SIZE.size:
            return None
        (size,) = _SIZE.unpack(head)
        left -= size
        if left < 0:
            raise ValueError(f"more than {max_bytes} bytes")
        part = stream.read(size)
        if len(part) < size:
            return None
        parts.append(part)
    return parts


def limit_this_process(memory_bytes: int, seconds: int) -> None:
    """Bound address space and processor time; no file may be written, no core dumped.

    Does nothing where the system has no `resource` (Windows): there the outside's clock remains.
    """
    try:
        import resource
    except ImportError:
        return
    wanted = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        # At the soft limit of time the signal says so, at the hard one it is a kill like any other.
        hard = value + (kind == resource.RLIMIT_CPU)
        allowed = resource.getrlimit(kind)[1]
        if allowed != resource.RLIM_INFINITY:
            value, hard = min(value, allowed), min(hard, allowed)
        try:
            resource.setrlimit(kind, (value, hard))
        except (OSError, ValueError):  # macOS refuses RLIMIT_AS
            continue


def main() -> None:
    """Serve: argv holds the module with `handle`, the memory in bytes and the seconds."""
    module, memory, seconds = sys.argv[1:4]
    limit_this_process(int(memory), int(seconds))
    # What native code prints must not get among the replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    handle: Handler = importlib.import_module(module).handle
    while (parts := read_message(sys.stdin.buffer, 1 << 62)) is not None:
        try:
            reply = [OK, *handle(parts)]
        except Exception as error:  # whatever native code raises, the outside is told
            reply = [FAILED, type(error).__name__.encode()]
        write_message(replies, reply)
