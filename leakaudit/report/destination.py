"""Writing results to a file: whole or not at all, and never over what the run reads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from leakaudit.errors import UsageError


def write_text(path: Path, text: str, option: str = "--output") -> None:
    """Write UTF-8 text atomically: a reader sees the old file or the new one, never a part.

    A link stays a link: what it points to is written. A device or a pipe is written in place.
    `option` is the one that named the file, for the error message.

    Raises:
        UsageError: The file cannot be written.
    """
    temporary: str | None = None
    named = path
    try:
        if path.exists() and not path.is_file():
            with path.open("w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
            return
        path = path.resolve()
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
        raise _unwritable(option, named, error.strerror) from error


def require_destinations(outputs: Sequence[tuple[str, Path]], inputs: Iterable[Path]) -> None:
    """Check, before a long run, that its results can be written and overwrite nothing it reads.

    Args:
        outputs: Options with the files that they name.
        inputs: Files that the run reads.

    Raises:
        UsageError: A file cannot be written, is read by this run, or is named twice.
    """
    read = {path.resolve() for path in inputs}
    taken: dict[Path, str] = {}
    for option, path in outputs:
        if path.exists() and not path.is_file() and not path.is_dir():
            continue  # a device or a pipe keeps nothing that could be lost
        place = path.resolve()
        if place in read:
            raise UsageError(f"{option} {path}: this run reads that file; name another one")
        if place in taken:
            raise UsageError(
                f"{option} {path}: {taken[place]} writes that file already; name another one"
            )
        taken[place] = option
        if path.is_dir():
            raise _unwritable(option, path, "Is a directory")
        if not place.parent.is_dir():
            raise _unwritable(option, path, "No such file or directory")
        if not os.access(place.parent, os.W_OK):
            raise _unwritable(option, path, "Permission denied")


def _unwritable(option: str, path: Path, reason: str | None) -> UsageError:
    return UsageError(
        f"{option} {path}: it cannot be written ({reason}); name a file in a folder that exists "
        "and is writable"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
