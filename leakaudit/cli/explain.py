"""`leakaudit explain`: what a rule means, where the counts of a layer come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from leakaudit.cli import configured as cli_config
from leakaudit.cli.completion import complete_rule_or_target
from leakaudit.cli.options import load_options, shared
from leakaudit.cli.terminal import echo
from leakaudit.errors import UsageError
from leakaudit.explain.rule import explain_rule
from leakaudit.rules.registry import load_rules


@click.command()
@click.argument("subject", metavar="RULE|TARGET", shell_complete=complete_rule_or_target)
@click.option("--layer", metavar="NAME", help="Layer of TARGET to explain.")
@shared("input_shape", "batch_size", "frozen", "limit", "rules")
@cli_config.configured()
def explain(subject: str, layer: str | None, **settings: Any) -> None:
    """Explain a rule, or the counts of one layer of a model.

    Of a layer: the formulas, and the same with the numbers put in.
    """
    if layer is None and Path(subject).is_file():
        raise UsageError(f"{subject} is no rule: name one of its layers with --layer")
    if layer is None:
        echo(explain_rule(subject, load_rules(settings["rule_folders"])))
    else:
        from leakaudit.explain.layer import explain_layer  # with sympy, for its formulas
        from leakaudit.pipeline.audit import AuditOptions

        options = AuditOptions((), load_options(settings), per_target=cli_config.target_options())
        echo(explain_layer(subject, layer, options.for_target(subject).load))
