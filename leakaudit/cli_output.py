"""What is said on stdout and stderr, to a reader that may have gone."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import click


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
