"""Which file holds the configuration, and its table."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from leakaudit.config.config import Config, parse
from leakaudit.errors import UsageError

OWN_FILE = "leakaudit.toml"
PROJECT_FILE = "pyproject.toml"
MAX_BYTES = 1024 * 1024


def discover(start: Path) -> Config:
    """The configuration of the nearest folder that has one, from `start` upward.

    In one folder leakaudit.toml comes before pyproject.toml; a pyproject.toml without
    `[tool.leakaudit]` is passed over. Where there is none, an empty one. A leakaudit.toml that is
    no file is not passed over: whoever made it relies on it.

    Raises:
        UsageError: The file found is not valid.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        own = folder / OWN_FILE
        if own.exists() or own.is_symlink():
            return parse(_toml(own), own)
        project = folder / PROJECT_FILE
        table = _project_table(project) if project.is_file() else None
        if table is not None:
            return parse(table, project)
    return Config()


def read(file: Path) -> Config:
    """The configuration in a file: in a pyproject.toml the table `[tool.leakaudit]`.

    Raises:
        UsageError: It cannot be read or is not valid.
    """
    file = file.absolute()
    if file.name != PROJECT_FILE:
        return parse(_toml(file), file)
    table = _project_table(file)
    if table is None:
        raise UsageError(f"{file}: it has no table [tool.leakaudit]; add it or leave out --config")
    return parse(table, file)


def _project_table(file: Path) -> Mapping[str, object] | None:
    tools = _toml(file).get("tool", {})
    table = tools.get("leakaudit") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise UsageError(f"{file}: tool.leakaudit is no table; write [tool.leakaudit]")
    return table


def _toml(file: Path) -> dict[str, object]:
    remedy = "mend it, or use --isolated to do without a configuration"
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{file}: cannot be read ({error.strerror}); check the path, or use --isolated to do "
            "without a configuration"
        ) from error
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{file}: longer than {MAX_BYTES} bytes; {remedy}")
    try:
        return tomllib.loads(raw.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{file}: not valid TOML ({error}); {remedy}") from error
