"""Names of targets apart from this machine: as a file beside them would write them."""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass
from pathlib import Path


def split(target: str) -> tuple[str | None, str]:
    """The path in a target and what follows it: `net.py:build` is (`net.py`, `:build`).

    The path is None for `package.module:callable`, which names no file.
    """
    location, colon, attribute = target.rpartition(":")
    is_callable = colon and location and attribute.replace(".", "_").isidentifier()
    if not is_callable or Path(target).exists():
        return target, ""
    if location.endswith(".py"):
        return location, f":{attribute}"
    return None, target


def name_from(folder: Path, target: str) -> str:
    """The target as seen from `folder`: a relative path with forward slashes.

    Two ways of writing one path give one name, whatever the working folder is. A link below
    `folder` keeps its name; links on the way to `folder` itself make no difference.
    """
    path, rest = split(target)
    if path is None:
        return target
    name = _relative(Path(path), folder)
    if name.startswith("../"):
        resolved = _relative(Path(path).parent.resolve() / Path(path).name, folder.resolve())
        name = name if resolved.startswith("../") else resolved
    return name + rest


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive on Windows
        return path.absolute().as_posix()


def from_folder(folder: Path, target: str) -> str:
    """A target that a file in `folder` names, as seen from the working folder."""
    path, rest = split(target)
    # `split` looks for the file in the working folder; here it is meant from `folder`.
    if path is None and not (folder / target).exists():
        return target
    return os.path.relpath(folder / (path or target)) + rest


def identity(target: str) -> str:
    """Equal for targets that are one file, links and dot segments resolved."""
    path, rest = split(target)
    return target if path is None else os.path.realpath(path) + rest


@dataclass(frozen=True, slots=True)
class TargetPattern:
    """Which targets a setting is for.

    Attributes:
        glob: `*` matches any characters, slashes too. Without a slash it is matched against the
            file's name, otherwise against the path from `folder`.
        folder: Where the file with the setting lies.
    """

    glob: str
    folder: Path

    def matches(self, target: str) -> bool:
        """Whether the setting is for this target."""
        name = name_from(self.folder, target)
        glob = self.glob.removeprefix("./")
        if "/" not in self.glob:
            name = name.rpartition("/")[2]
        return fnmatch.fnmatchcase(name, glob)
