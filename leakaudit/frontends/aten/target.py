"""The user's object behind `package.module:callable` or `path/file.py:callable`.

The only place that imports the user's code, and only because the user named it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import operator
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from leakaudit.errors import AuditError

TARGET_REMEDY = "name it as package.module:callable or path/file.py:callable"
_MAX_REASON = 300


@contextlib.contextmanager
def imported(target: str, location: str) -> Iterator[ModuleType]:
    """Import a file or a module; its folder stays importable as long as its code runs."""
    is_file = location.endswith(".py")
    if is_file and not Path(location).is_file():
        raise AuditError(target, "there is no such file", "check the path")
    folder = str(Path(location).resolve().parent if is_file else Path.cwd())
    before = set(sys.modules)
    sys.path.insert(0, folder)
    # A module may have been written since this process last looked.
    importlib.invalidate_caches()
    try:
        try:
            namespace = _execute(location) if is_file else importlib.import_module(location)
        # The user's code is arbitrary: whatever it raises, SystemExit included, is about the
        # target and not about this tool.
        except (Exception, SystemExit) as error:
            raise AuditError(
                target, f"importing it failed ({last_line(error)})", "check that it imports"
            ) from error
        yield namespace
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
        if is_file:
            # Two targets may each have a neighbour `model.py`; the second must find its own.
            for name in set(sys.modules) - before:
                origin = getattr(sys.modules[name], "__file__", None)
                if origin and Path(origin).resolve().is_relative_to(folder):
                    del sys.modules[name]


def _execute(location: str) -> ModuleType:
    path = Path(location).resolve()
    name = f"_leakaudit_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is not a Python file")
    namespace = importlib.util.module_from_spec(spec)
    # Dataclasses and torch look a class's module up by name while it is being defined.
    sys.modules[name] = namespace
    spec.loader.exec_module(namespace)
    return namespace


def find(target: str, namespace: ModuleType, attribute: str) -> Any:
    """The attribute, dotted names included; raises AuditError where there is none."""
    try:
        return operator.attrgetter(attribute)(namespace)
    except AttributeError as error:
        raise AuditError(target, f"it has no attribute {attribute!r}", TARGET_REMEDY) from error


def call(target: str, found: Any) -> Any:
    """What the user's object gives when it is called without arguments.

    Raises:
        AuditError: It cannot be called, or its code fails.
    """
    if not callable(found):
        raise AuditError(
            target,
            f"it is a {type(found).__name__}, not an nn.Module or a callable that returns one",
            TARGET_REMEDY,
        )
    try:
        return found()
    # User code again: see `imported`.
    except (Exception, SystemExit) as error:
        raise AuditError(
            target,
            f"calling it without arguments failed ({last_line(error)})",
            "name a function without parameters that returns the module",
        ) from error


def last_line(error: BaseException) -> str:
    """The line of a traceback that names the exception, cut to a readable length."""
    lines = "".join(traceback.format_exception_only(error)).splitlines()
    # A message of several lines says most in its first; a SyntaxError says it in its last.
    chosen = lines[-1] if isinstance(error, SyntaxError) else lines[0]
    text = " ".join(chosen.split())
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}..."
