"""`leakaudit advise`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import click

from leakaudit.cli import configured as cli_config
from leakaudit.cli.completion import complete_target
from leakaudit.cli.options import FILE, Number, choice, load_options, shared
from leakaudit.cli.terminal import echo, report_width
from leakaudit.errors import UsageError
from leakaudit.pipeline.audit import AuditOptions, require_confirmation
from leakaudit.report.destination import require_destinations
from leakaudit.report.escape import plain


@click.command()
@click.argument("target", metavar="TARGET", shell_complete=complete_target)
@click.option("--layer", metavar="NAME", help="Advise on this layer only.")
@shared("input_shape", "batch_size", "frozen", "limit", "loss")
@click.option(
    "--max-rho",
    type=Number(0, 1, min_open=True),
    metavar="SHARE",
    default=1.0,
    help="Share of a layer's input that may stay determined; 1: anything short of all of it.",
)
@click.option(
    "--confirm/--no-confirm",
    default=None,
    help="Run the reconstruction on the best change of each layer [default: if torch is there].",
)
@shared(
    "seed",
    "time_budget",
    seed="Seed of weights of new shapes, and of the probe.",
    time_budget="For the reconstruction on each change that is run.",
)
@click.option(
    "--write",
    "write_to",
    type=FILE,
    metavar="FILE.onnx",
    help="Write the model with the best change that a file can state; no file is overwritten.",
)
@choice("--format", ["table", "json"], "table", "Format of the advice.", to="file_format")
@cli_config.configured(but=("format",))
def advise(target: str, **settings: Any) -> None:
    """Find the smallest changes that remove a finding.

    For every flagged layer of TARGET and every design parameter the smallest change after which a
    new audit no longer flags it, best first: changes that close the path to the model's input, then
    by how much of what is trained changes, then by the share of the input that stays determined.

    Exit codes: 0 nothing to advise, 1 changes are listed or a flagged layer has none, 2 wrong
    usage, 3 not audited or audit incomplete.
    """
    from leakaudit.advice.render import as_json, as_table, describe
    from leakaudit.advice.write import best_writable, check_writable, write
    from leakaudit.frontends import registry
    from leakaudit.pipeline.api import advise_on

    write_to: Path | None = settings["write_to"]
    if Path(target).is_dir():
        raise UsageError(f"advise takes one model, and {target} is a folder: name a file in it")
    if write_to is not None:
        check_writable(target, registry.format_of(target), write_to)
        require_destinations([("--write", write_to)], [Path(target)])
    confirm = _confirm_wanted(settings["confirm"])
    general = AuditOptions(
        (), load_options(settings), settings["loss"], per_target=cli_config.target_options()
    )
    options = general.for_target(target)
    graph = registry.load(target, options.load)
    advice = advise_on(graph, target, {**settings, "confirm": confirm, "loss": options.loss})
    if settings["file_format"] == "json":
        echo(as_json(target, advice), nl=False)
    else:
        echo(as_table(target, advice, report_width()), nl=False)
    if write_to is not None and advice.layers:
        best = best_writable(c for layer in advice.layers for c in layer.candidates)
        frozen = write(target, advice, best, write_to, options.load, settings["seed"])
        echo(_written(write_to, describe(best.change.layer, best), frozen), err=True)
    if advice.layers:
        sys.exit(1)
    sys.exit(0 if advice.complete else 3)


def _confirm_wanted(choice: bool | None) -> bool:
    """Whether to run the reconstruction; on by default where it can be run.

    Raises:
        UsageError: It is asked for and cannot be run.
    """
    if choice is None:
        return all(importlib.util.find_spec(name) for name in ("torch", "onnxruntime"))
    if choice:
        require_confirmation()
    return choice


def _written(path: Path, change: str, frozen: tuple[str, ...]) -> str:
    arguments = "".join(f" --frozen '{plain(name)}'" for name in frozen)
    return (
        f"leakaudit: wrote {plain(str(path))} ({change}); weights of new shapes are drawn anew and "
        f"need training. Audit it with: leakaudit check {plain(str(path))}{arguments}"
    )
