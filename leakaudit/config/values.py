"""Kinds of values in a configuration, and what each is made into.

A check takes a value as TOML gives it and the folder of the file, and returns what the command line
would have given; it raises `Mistake` with what it wants instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from leakaudit.config.targets import from_folder
from leakaudit.errors import UsageError
from leakaudit.findings import Severity
from leakaudit.sandbox.limits import parse_limits

Check = Callable[[object, Path], object]


class Mistake(Exception):
    """A value of the wrong type; the text says what is wanted.

    Args:
        wanted: The text.
        key: In a table, the key whose value is wrong.
    """

    def __init__(self, wanted: str, key: str | None = None) -> None:
        super().__init__(wanted)
        self.key = key


def _of_type(wanted: str, *kinds: type) -> Check:
    def check(value: object, _folder: Path) -> object:
        if type(value) not in kinds:  # not isinstance: true is no whole number
            raise Mistake(f"{wanted} is wanted")
        return value

    return check


boolean = _of_type("true or false", bool)
integer = _of_type("a whole number", int)
number = _of_type("a number", int, float)
text = _of_type("a string", str)


def texts(value: object, _folder: Path) -> tuple[str, ...]:
    """An array of strings, or one string."""
    entries = value if isinstance(value, list) else [value]
    strings = tuple(entry for entry in entries if isinstance(entry, str))
    if len(strings) < len(entries):
        raise Mistake("a string or an array of strings is wanted")
    return strings


def shapes(value: object, folder: Path) -> tuple[str, ...]:
    """Input shapes as `--input-shape` takes them; an array of numbers is one shape."""
    if isinstance(value, list) and value and all(type(size) is int for size in value):
        return (",".join(map(str, value)),)
    try:
        return texts(value, folder)
    except Mistake:
        raise Mistake(
            'a shape like "1,3,32,32" or [1, 3, 32, 32], or an array of "NAME=SIZES" is wanted'
        ) from None


def text_or_integer(value: object, folder: Path) -> str:
    """A string, or a whole number."""
    return str(_of_type("a whole number or a string", str, int)(value, folder))


def path(value: object, folder: Path) -> str:
    """A path, relative to the configuration; as seen from the working folder."""
    return os.path.relpath(folder / str(text(value, folder)))


def paths(value: object, folder: Path) -> tuple[str, ...]:
    """Paths, relative to the configuration."""
    return tuple(path(entry, folder) for entry in texts(value, folder))


def report_files(value: object, folder: Path) -> tuple[str, ...]:
    """`FORMAT=FILE`, the file relative to the configuration."""
    pairs = [entry.partition("=") for entry in texts(value, folder)]
    return tuple(f"{kind}={path(file, folder) if file else ''}" for kind, _equals, file in pairs)


def targets(value: object, folder: Path) -> tuple[str, ...]:
    """What to audit: files and folders relative to the configuration, or importable objects."""
    return tuple(from_folder(folder, entry) for entry in texts(value, folder))


def severities(value: object, _folder: Path) -> dict[str, Severity]:
    """A table of rules and their severities."""
    if not isinstance(value, dict):
        raise Mistake('a table like { LA003 = "low" } is wanted')
    known = ", ".join(Severity)
    for rule, severity in value.items():
        if not isinstance(severity, str) or severity not in list(Severity):
            raise Mistake(f"one of {known} is wanted", rule)
    return {rule: Severity(severity) for rule, severity in value.items()}


def limits(value: object, _folder: Path) -> tuple[str, ...]:
    """A table of limits, as `--limit` takes them: `NAME=VALUE`."""
    if not isinstance(value, dict):
        raise Mistake('a table like { file_bytes = "8GiB" } is wanted')
    for name, entry in value.items():
        try:
            parse_limits([f"{name}={entry}"])
        except UsageError as error:
            wanted = 'a whole number from 1, or a text like "500k" or "8GiB", is wanted'
            raise Mistake(wanted, name) from error
    return tuple(f"{name}={entry}" for name, entry in value.items())
