"""The group of all commands. A command's module is imported when that command is called.

What is imported here is all that `--version`, `--help` and the completion of a command's name wait
for: click, and the first sentence of each command's help.
"""

from __future__ import annotations

import errno
import importlib
import sys
import traceback
from typing import Any

import click

from leakaudit import __version__
from leakaudit.cli.interrupts import stopped_at_once
from leakaudit.errors import INTERRUPTED, LeakauditError

# What the help of each command says first. Each stands in the module of its name.
COMMANDS = {
    "advise": "Find the smallest changes that remove a finding.",
    "baseline": "Write down the findings of today, for `check --baseline FILE`.",
    "bench": "Measure accuracy, time and memory, against other methods.",
    "check": "Audit models and confirm what is flagged.",
    "completion": "Print the script for completion in a shell.",
    "explain": "Explain a rule, or the counts of one layer of a model.",
    "init": "Write a commented leakaudit.toml into the current folder.",
    "rules": "List the rules.",
}


def imported(name: str) -> click.Command:
    """The command of this name, its module imported."""
    with stopped_at_once():
        command: click.Command = getattr(importlib.import_module(f"leakaudit.cli.{name}"), name)
    return command


class Commands(click.Group):
    """Imports a command when it is called, and turns errors into one line and an exit code.

    Until then a stand-in with the command's name and first sentence answers for it.
    """

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called, and import it."""
        name, stand_in, rest = super().resolve_command(ctx, args)
        return name, stand_in and imported(str(name)), rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except LeakauditError as error:
            _say(f"leakaudit: {error}")
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            # 1 would say that there are findings.
            _say("leakaudit: stopped")
            sys.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        # The outermost boundary: nothing is swallowed, it is printed whole and exits with 2.
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # whoever reads the output has seen enough: click ends the run
            # Python would end with 1, which says that there are findings.
            _say(*traceback.format_exc().splitlines(), "leakaudit: internal error, see above")
            sys.exit(2)


def _say(*lines: str) -> None:
    """Write lines to stderr, whatever a model file put into them made harmless."""
    from leakaudit.cli.terminal import echo
    from leakaudit.report.escape import plain

    echo("\n".join(map(plain, lines)), err=True)


@click.group(
    cls=Commands,
    commands={name: click.Command(name, help=text) for name, text in COMMANDS.items()},
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,  # of every option of every command
    },
)
@click.version_option(__version__, prog_name="leakaudit")
def main() -> None:
    """Audit neural-network architectures for gradient leakage.

    Answers, for a model file: which tensors of a training example can be computed back from one
    shared gradient by solving linear equations? And proves it by doing so.
    """
    for stream in (sys.stdout, sys.stderr):
        # Formulas use characters that some consoles cannot print: replace them, never fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
