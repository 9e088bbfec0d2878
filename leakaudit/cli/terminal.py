"""What is said on stdout and stderr, to a reader that may have gone."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from leakaudit.errors import UsageError
from leakaudit.report.escape import plain


def echo(text: str, *, nl: bool = True, err: bool = False, color: bool | None = None) -> None:
    """Print as `click.echo` does; where the reader has seen enough, the run goes on unheard.

    The exit code and the files of a run count also where its text is cut short: `| head -1`.

    Raises:
        OSError: It cannot be written for another reason, a full disk say.
    """
    try:
        click.echo(text, nl=nl, err=err, color=color)
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        # Not closed: Python would fail once more at its end, on what is left in the buffer.
        with Path(os.devnull).open("wb") as sink:
            os.dup2(sink.fileno(), (sys.stderr if err else sys.stdout).fileno())


def print_report(text: str, file_format: str, *, color: bool) -> None:
    """Write the report to stdout.

    Raises:
        UsageError: It cannot be written, a full disk say. A reader that has gone is none.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if file_format == "html" and encoding.lower().replace("-", "") != "utf8":
        # The page says that it is UTF-8: references are the same in every encoding.
        text = text.encode("ascii", "xmlcharrefreplace").decode("ascii")
    try:
        echo(text, nl=False, color=color)
    except OSError as error:
        raise UsageError(
            f"stdout: the report cannot be written ({error.strerror}); make room, or name a file "
            "with --output"
        ) from error


def use_color(choice: str) -> bool:
    """Whether `--color CHOICE` (auto, always, never) and the usual variables ask for colour."""
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout is not None and sys.stdout.isatty()


def report_width() -> int:
    """Columns of a table for people: as the terminal, within reason."""
    return max(80, min(140, terminal_width()))


def terminal_width() -> int:
    """Columns of the terminal, 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


@contextmanager
def progress_line(wanted: bool) -> Iterator[Callable[[str], None]]:
    """One line on stderr that is overwritten, on a terminal only; it leaves nothing behind."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda _text: None
        return

    def show(text: str) -> None:
        line = plain(text)[: terminal_width() - 4]
        click.echo(f"\r\x1b[K  {line} ...", nl=False, err=True, color=True)

    try:
        yield show
    finally:
        click.echo("\r\x1b[K", nl=False, err=True, color=True)
