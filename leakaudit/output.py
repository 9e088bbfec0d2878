"""Writing results to a file: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from leakaudit.errors import UsageError


def write_text(path: Path, text: str, option: str = "--output") -> None:
    """Write UTF-8 text atomically: a reader sees the old file or the new one, never a part.

    `option` is the one that named the file, for the error message.

    Raises:
        UsageError: The file cannot be written.
    """
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        # mkstemp makes files that only the owner reads; a report is an ordinary file.
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise UsageError(
            f"{option} {path}: it cannot be written ({error.strerror}); name a file in a folder "
            "that exists and is writable"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
