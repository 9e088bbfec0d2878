"""`leakaudit rules`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from leakaudit.cli import configured as cli_config
from leakaudit.cli.options import shared
from leakaudit.cli.terminal import echo
from leakaudit.explain.rule import list_rules
from leakaudit.rules.registry import load_rules


@click.command()
@shared("rules")
@cli_config.configured()
def rules(rule_folders: tuple[Path, ...], **_settings: Any) -> None:
    """List the rules."""
    echo(list_rules(load_rules(rule_folders)))
