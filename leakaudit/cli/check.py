"""`leakaudit check`: the audit itself, with everything that a gate asks of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from leakaudit.cli import configured as cli_config
from leakaudit.cli.completion import complete_rule, complete_target
from leakaudit.cli.options import FILE, FOLDER, ReportFile, choice, load_options, shared
from leakaudit.cli.terminal import echo, print_report, progress_line, report_width, use_color
from leakaudit.errors import AuditError, UsageError
from leakaudit.findings import AuditReport, Finding, Severity
from leakaudit.frontends.registry import expand
from leakaudit.pipeline.audit import AuditOptions, audit_all
from leakaudit.pipeline.baseline import compare, read as read_baseline
from leakaudit.pipeline.choices import DEVICES
from leakaudit.pipeline.gate import Evidence, exit_code, incomplete, outdated
from leakaudit.pipeline.many.processes import audit_many
from leakaudit.pipeline.options import audit_options
from leakaudit.pipeline.suppress import suppress
from leakaudit.report import REPORTERS, RenderOptions, reporter
from leakaudit.report.destination import require_destinations, write_text
from leakaudit.report.escape import plain
from leakaudit.rules.rule import Rule

SEVERITIES = [severity.value for severity in Severity]
named_rules = partial(click.option, multiple=True, metavar="RULE", shell_complete=complete_rule)


@click.command()
@click.argument("targets", nargs=-1, metavar="[TARGET]...", shell_complete=complete_target)
@shared("input_shape")
@click.option("--confirm/--no-confirm", default=True, help="Prove findings by running R-CONV.")
@choice("--device", DEVICES, "auto", "Where to run R-CONV; auto: on a GPU if there is one.")
@shared("gradient_dtype", "loss")
@click.option("--probe", type=FILE, help="Picture to reconstruct instead of a synthetic one.")
@shared("seed")
@click.option(
    "--save-images",
    type=FOLDER,
    metavar="DIR",
    help="Write original, reconstruction and difference as PNG.",
)
@shared("time_budget", "batch_size", "frozen", "limit")
@named_rules("--select", help="Apply only these rules.")
@named_rules("--ignore", help="Do not apply these rules.")
@shared("rules")
@choice("--severity", SEVERITIES, "note", "Show findings of at least this severity.")
@choice("--fail-on", SEVERITIES, "medium", "Exit with 1 for findings of at least this severity.")
@choice(
    "--fail-on-evidence",
    [evidence.value for evidence in Evidence],
    "flagged",
    "'flagged': every finding counts; 'confirmed': only those that R-CONV reconstructed.",
)
@click.option(
    "--baseline",
    "baseline_file",
    type=FILE,
    metavar="FILE",
    help="Report only what is not in this file, which `leakaudit baseline` writes.",
)
@click.option("--no-ignores", is_flag=True, help="Do not suppress what the configuration ignores.")
@choice("--format", sorted(REPORTERS), "table", "Format of the report.", to="file_format")
@click.option("-o", "--output", type=FILE, help="Write the report to this file instead of stdout.")
@click.option(
    "--report",
    "reports",
    type=ReportFile(),
    multiple=True,
    metavar="FORMAT=FILE",
    help="Write a further report of the same audit, e.g. sarif=leakaudit.sarif; repeatable.",
)
@click.option("--exit-zero", is_flag=True, help="Exit with 0 even if there are findings.")
@shared("jobs", "cluster")
@click.option("--no-progress", is_flag=True, help="No progress on stderr.")
@choice(
    "--color", ["auto", "always", "never"], "auto", "Colours of the table; auto: on a terminal."
)
@click.option(
    "-q", "--quiet", count=True, show_default=False, help="Say less; twice: the summary only."
)
@click.option(
    "-v",
    "--verbose",
    count=True,
    show_default=False,
    help="Say more: formulas, premises, attempts.",
)
@cli_config.configured()
def check(**settings: Any) -> None:
    """Audit models and confirm what is flagged.

    TARGET is model.onnx, model.pt2, package.module:callable, path/file.py:callable, or a folder.
    A callable imports and runs that code.

    Without a TARGET, those of the configuration are audited. --select, --ignore, --frozen, --limit,
    --rules and --report may be repeated.

    Exit codes: 0 nothing at or above --fail-on, 1 findings, 2 wrong usage or an internal error, 3
    nothing audited or audit incomplete.
    """
    gate = Severity(settings["fail_on"]), Evidence(settings["fail_on_evidence"])
    targets = cli_config.targets_or_configured(settings["targets"])
    baseline_file: Path | None = settings["baseline_file"]
    _check_destinations(settings, targets)
    known = None if baseline_file is None else read_baseline(baseline_file)
    all_rules = cli_config.configured_rules(settings["rule_folders"])
    options = _audit_options(settings, all_rules)
    ignores = () if settings["no_ignores"] else cli_config.ignores(all_rules)
    with progress_line(not settings["no_progress"]) as progress:
        run = partial(audit_many, jobs=settings["jobs"], cluster=settings["cluster"])
        report = audit_all(targets, options, progress, run)
    report = suppress(report, ignores, cli_config.current().folder, whole=not settings["targets"])
    if baseline_file is not None and known is not None:
        report = compare(report, known, baseline_file.parent, str(baseline_file))
    code = exit_code(report, *gate)
    shown = _at_least(report, Severity(settings["severity"]))
    output: Path | None = settings["output"]
    render = RenderOptions(
        color=output is None and use_color(settings["color"]),
        width=report_width(),
        verbosity=settings["verbose"] - settings["quiet"],
    )
    text = reporter(settings["file_format"])(shown, render)
    if output is None:
        print_report(text, settings["file_format"], color=render.color)
    # Before the files: should one of them fail, this has been said.
    problems = [line for model in report.models if (line := incomplete(model, *gate))]
    unused = [] if settings["targets"] else cli_config.unmatched(it.target for it in report.models)
    for line in [*problems, *outdated(report), *unused]:
        echo(f"leakaudit: {plain(line)}", err=True)
    if output is not None:
        write_text(output, text)
    for file_format, path in settings["reports"]:
        # A terminal's colours have no place in a file.
        text = reporter(file_format)(shown, replace(render, color=False))
        write_text(path, text, "--report")
    sys.exit(0 if settings["exit_zero"] and code == 1 else code)


def _audit_options(settings: dict[str, Any], all_rules: tuple[Rule, ...]) -> AuditOptions:
    if settings["fail_on_evidence"] == Evidence.CONFIRMED and not settings["confirm"]:
        raise UsageError(
            "--fail-on-evidence confirmed needs the confirmation, without it no finding would ever "
            "count: leave out --no-confirm"
        )
    return audit_options(
        settings, all_rules, load_options(settings), cli_config.target_options(all_rules)
    )


def _check_destinations(settings: dict[str, Any], targets: tuple[str, ...]) -> None:
    """Check that no report overwrites what this run reads, and that all can be written."""
    outputs = [("--report", path) for _, path in settings["reports"]]
    if settings["output"] is not None:
        outputs.insert(0, ("--output", settings["output"]))
    if not outputs:
        return
    read: list[Path] = []
    for target in targets:
        try:
            read.extend(map(Path, expand(target)))
        except AuditError:
            read.append(Path(target))  # reported by the audit itself
    read.extend(
        path
        for path in (
            settings["baseline_file"],
            settings["probe"],
            cli_config.current().file,
            *(rule for folder in settings["rule_folders"] for rule in folder.glob("*.toml")),
        )
        if path is not None
    )
    require_destinations(outputs, read)


def _at_least(report: AuditReport, severity: Severity) -> AuditReport:
    def shown(finding: Finding) -> bool:
        return finding.severity.at_least(severity)

    models = tuple(
        replace(
            model,
            findings=tuple(filter(shown, model.findings)),
            known=tuple(filter(shown, model.known)),
            suppressed=tuple(it for it in model.suppressed if shown(it.finding)),
        )
        for model in report.models
    )
    return replace(report, models=models)
