"""Where a target lies, for formats that point at files: a path from the repository's root."""

from __future__ import annotations

import os.path
from pathlib import Path
from urllib.parse import quote

from leakaudit.findings import ModelReport
from leakaudit.report.escape import without_surrogates


def file_of(model: ModelReport) -> str:
    """Return the file of a model with forward slashes, relative to the working folder if below it.

    A `path/file.py:callable` lies in its file; a `package.module:callable` names none and stays as
    it is. Dot segments are resolved. Untrusted: escape it for where it goes.
    """
    target = model.target
    if model.format == "module":
        location, colon, _ = target.rpartition(":")
        if not (colon and location.endswith(".py")):
            return target
        target = location
    # normpath, not resolve: the name the user knows, links and all, and no look at the disk.
    path = Path(os.path.normpath(target)).as_posix()
    return path.removeprefix(Path.cwd().as_posix().rstrip("/") + "/")


def uri_of(model: ModelReport) -> tuple[str, bool]:
    """Return the percent-encoded URI of the model's file, and whether it is relative.

    A file outside the working folder has a `file:` URI: a relative reference that climbs out of
    its base means nothing to a reader elsewhere. Whatever the name holds, the result is one path
    of unreserved characters, percent signs and slashes.
    """
    path = file_of(model)
    if Path(path).is_absolute() or path == ".." or path.startswith("../"):
        absolute = os.path.normpath(Path.cwd() / path)
        return Path(without_surrogates(absolute)).as_uri(), False
    return quote(without_surrogates(path), safe="/"), True
