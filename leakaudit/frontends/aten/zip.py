"""Opening the zip of an export archive. Its directory is measured before anything reads it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from leakaudit.frontends.aten.schema import FormatError
from leakaudit.sandbox.limits import Limits

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)

_TAIL = 2**16 + 22 + 76  # the longest comment, the end record, and what a zip64 has before it
_MEMBER_BYTES = 256  # in the directory: 46 and the name; torch's names are short


@contextmanager
def open_zip(source: Path | bytes, target: str, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """Open the zip, its central directory read, and close the file at the end.

    Raises:
        FormatError: It is not a zip or is damaged.
        AuditError: Its directory is larger than the allowed number of members needs.
    """
    try:
        stream: IO[bytes] = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    except OSError as error:
        raise FormatError(f"the file cannot be read ({error.strerror})") from error
    with stream:
        try:
            if _directory_bytes(stream) > limits.members * _MEMBER_BYTES:
                raise limits.exceeded("members", target, "the archive's directory is too large")
            archive = zipfile.ZipFile(stream)
        except (*ZIP_ERRORS, ValueError) as error:
            raise FormatError("the zip is truncated or damaged") from error
        with archive:
            # zipfile tolerates leading bytes, so in a truncated archive it can find the directory
            # of a zip that was stored inside (torch keeps the sample inputs as one).
            if min((info.header_offset for info in archive.infolist()), default=0) != 0:
                raise FormatError("the zip is truncated or damaged")
            yield archive


def _directory_bytes(stream: IO[bytes]) -> int:
    """Size of the central directory as the end of the file states it, zip64 included."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - _TAIL))
    tail = stream.read(_TAIL)
    stream.seek(0)
    sizes = [0]
    end = tail.rfind(b"PK\5\6")
    if 0 <= end <= len(tail) - 22:
        sizes += struct.unpack_from("<L", tail, end + 12)
    end = tail.rfind(b"PK\6\6")
    if 0 <= end <= len(tail) - 56:
        sizes += struct.unpack_from("<Q", tail, end + 40)
    # All ones refers to the zip64 record.
    return max(found for found in sizes if found != 0xFFFFFFFF)
