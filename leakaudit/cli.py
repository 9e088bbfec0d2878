"""The command line. Results go to stdout, progress, warnings and errors to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from leakaudit import __version__
from leakaudit.audit import AuditOptions, audit_all, exit_code, incomplete, require_confirmation
from leakaudit.bench.command import bench
from leakaudit.cli_advise import advise
from leakaudit.cli_options import load_options, shared
from leakaudit.errors import LeakauditError, UsageError
from leakaudit.explain import explain_layer, explain_rule, list_rules
from leakaudit.findings import Severity
from leakaudit.output import write_text
from leakaudit.report import REPORTERS, RenderOptions, reporter
from leakaudit.report.escape import plain
from leakaudit.rules.registry import load_rules
from leakaudit.rules.select import select_rules

SEVERITIES = [severity.value for severity in Severity]


class Commands(click.Group):
    """Turns our errors into one line on stderr and the contract's exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except LeakauditError as error:
            click.echo(f"leakaudit: {plain(str(error))}", err=True)
            sys.exit(error.exit_code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
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


@main.command()
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@shared("input_shape")
@click.option("--confirm/--no-confirm", default=True, help="Prove findings by running R-CONV.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@click.option(
    "--gradient-dtype",
    type=click.Choice(["float64", "float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Precision in which the client sends its gradient.",
)
@click.option(
    "--loss",
    type=click.Choice(["auto", "cross-entropy", "bce", "mse"]),
    default="auto",
    show_default=True,
    help="Training loss; auto: bce for one output, else cross-entropy.",
)
@click.option(
    "--probe",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Picture to reconstruct instead of a synthetic one.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@shared("counting")
@click.option(
    "--save-images",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write original, reconstruction and difference as PNG.",
)
@click.option(
    "--time-budget",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=120,
    show_default=True,
    help="Per model; a layer whose local confirmation would not fit is reported as not run.",
)
@shared("batch_size", "frozen")
@click.option("--select", multiple=True, metavar="RULE", help="Apply only these rules.")
@click.option("--ignore", multiple=True, metavar="RULE", help="Do not apply these rules.")
@shared("rules")
@click.option(
    "--severity",
    type=click.Choice(SEVERITIES),
    default="note",
    show_default=True,
    help="Show findings of at least this severity.",
)
@click.option(
    "--fail-on",
    type=click.Choice(SEVERITIES),
    default="medium",
    show_default=True,
    help="Exit with 1 for findings of at least this severity.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(sorted(REPORTERS)),
    default="table",
    show_default=True,
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file."
)
@click.option("--exit-zero", is_flag=True, help="Exit with 0 even if there are findings.")
@click.option("--no-progress", is_flag=True, help="No progress on stderr.")
@click.option(
    "--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True
)
@click.option("-q", "--quiet", count=True, help="Say less; twice: the summary only.")
@click.option("-v", "--verbose", count=True, help="Say more: formulas, premises, attempts.")
def check(**settings: Any) -> None:
    """Audit models and confirm what is flagged.

    TARGET is model.onnx, model.pt2, package.module:callable, path/file.py:callable, or a folder.
    A callable imports and runs that code.

    Exit codes: 0 nothing at or above --fail-on, 1 findings, 2 wrong usage, 3 nothing audited or
    audit incomplete.
    """
    options = _audit_options(settings)
    with _progress(not settings["no_progress"]) as progress:
        report = audit_all(settings["targets"], options, progress)
    code = exit_code(report, Severity(settings["fail_on"]))
    shown = _at_least(report, Severity(settings["severity"]))
    output: Path | None = settings["output"]
    render = RenderOptions(
        color=output is None and _use_color(settings["color"]),
        width=max(80, min(140, _terminal_width())),
        verbosity=settings["verbose"] - settings["quiet"],
    )
    text = reporter(settings["file_format"]).render(shown, render)
    if output is None:
        click.echo(text, nl=False, color=render.color)
    else:
        write_text(output, text)
    for model in report.models:
        if line := incomplete(model):
            click.echo(f"leakaudit: {plain(line)}", err=True)
    sys.exit(0 if settings["exit_zero"] and code == 1 else code)


@main.command()
@click.argument("subject", metavar="RULE|TARGET")
@click.option("--layer", metavar="NAME", help="Layer of TARGET to explain.")
@shared("input_shape", "batch_size", "frozen", "counting", "rules")
def explain(subject: str, layer: str | None, **settings: Any) -> None:
    """Explain a rule, or the counts of one layer of a model with the numbers put in."""
    if layer is None:
        click.echo(explain_rule(subject, load_rules(settings["rule_folders"])))
    else:
        click.echo(explain_layer(subject, layer, load_options(settings), settings["counting"]))


main.add_command(advise)
main.add_command(bench)


@main.command()
@shared("rules")
def rules(rule_folders: tuple[Path, ...]) -> None:
    """List the rules."""
    click.echo(list_rules(load_rules(rule_folders)))


def _audit_options(settings: dict[str, Any]) -> AuditOptions:
    confirm = None
    if settings["confirm"]:
        require_confirmation()
        from leakaudit.rconv.confirm import ConfirmOptions

        confirm = ConfirmOptions(
            device=settings["device"],
            gradient_dtype=settings["gradient_dtype"],
            seed=settings["seed"],
            probe=settings["probe"],
            time_budget=settings["time_budget"],
        )
    elif settings["save_images"] or settings["probe"]:
        raise UsageError("--probe and --save-images need the confirmation: leave out --no-confirm")
    return AuditOptions(
        rules=select_rules(
            load_rules(settings["rule_folders"]), settings["select"], settings["ignore"]
        ),
        load=load_options(settings),
        counting=settings["counting"],
        loss=settings["loss"],
        confirm=confirm,
        save_images=settings["save_images"],
    )


def _at_least(report: Any, severity: Severity) -> Any:
    from dataclasses import replace

    models = tuple(
        replace(m, findings=tuple(f for f in m.findings if f.severity.at_least(severity)))
        for m in report.models
    )
    return replace(report, models=models)


def _use_color(choice: str) -> bool:
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty()


def _terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size((100, 24)).columns


@contextmanager
def _progress(wanted: bool) -> Iterator[Callable[[str], None]]:
    """One line on stderr that is overwritten, on a terminal only; it leaves nothing behind."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda _text: None
        return

    def show(text: str) -> None:
        line = plain(text)[: _terminal_width() - 4]
        click.echo(f"\r\x1b[K  {line} ...", nl=False, err=True, color=True)

    try:
        yield show
    finally:
        click.echo("\r\x1b[K", nl=False, err=True, color=True)
