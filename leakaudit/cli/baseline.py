"""`leakaudit baseline`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from leakaudit.cli import configured as cli_config
from leakaudit.cli.completion import complete_target
from leakaudit.cli.options import FILE, load_options, shared
from leakaudit.cli.terminal import echo
from leakaudit.errors import UsageError
from leakaudit.pipeline.audit import AuditOptions, audit_all
from leakaudit.pipeline.baseline import as_text, entries_of, read
from leakaudit.pipeline.gate import incomplete
from leakaudit.pipeline.suppress import suppress
from leakaudit.report.destination import write_text
from leakaudit.report.escape import plain

DEFAULT_FILE = "leakaudit-baseline.json"


@click.command()
@click.argument("targets", nargs=-1, metavar="[TARGET]...", shell_complete=complete_target)
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="FILE",
    help=f"Where to write it [default: the configuration's baseline, or {DEFAULT_FILE}].",
)
@click.option("--update", is_flag=True, help="Replace the file if there is one.")
@shared("input_shape", "batch_size", "frozen", "limit", "loss", "rules")
@cli_config.configured(but=("output",))
def baseline(targets: tuple[str, ...], output: Path | None, update: bool, **settings: Any) -> None:
    """Write down the findings of today, for `check --baseline FILE`.

    A finding is known by its rule, its layer's name and design and its target's path from FILE,
    not by weights: training does not make it new. This audit is static and fast. What the
    configuration suppresses is left out. With --update the file holds the findings of the given
    TARGETs and no others.

    Exit codes: 0 written, 2 wrong usage, 3 nothing written since a target could not be audited, or
    written and an audit is incomplete.
    """
    config = cli_config.current()
    file = output or Path(str(config.options.get("baseline", DEFAULT_FILE)))
    if file.exists() and not update:
        raise UsageError(f"{file} exists: replace it with --update, or name another with -o")
    before = set(read(file)) if file.exists() else None
    rules = cli_config.configured_rules(settings["rule_folders"])
    options = AuditOptions(
        rules=rules,
        load=load_options(settings),
        loss=settings["loss"],
        per_target=cli_config.target_options(rules),
    )
    report = audit_all(cli_config.targets_or_configured(targets), options)
    report = suppress(report, cli_config.ignores(rules), config.folder, whole=not targets)
    problems = [line for model in report.models if (line := incomplete(model))]
    for line in problems:
        echo(f"leakaudit: {plain(line)}", err=True)
    if any(model.error for model in report.models):
        echo(f"leakaudit: {plain(str(file))} is not written", err=True)
        raise SystemExit(3)
    entries = entries_of(report, file.parent)
    write_text(file, as_text(entries))
    text = f"leakaudit: wrote {len(entries)} known findings to {plain(str(file))}"
    if before is not None:
        added, removed = len(set(entries) - before), len(before - set(entries))
        text += f" ({added} added, {removed} removed)"
    echo(text, err=True)
    raise SystemExit(3 if problems else 0)
