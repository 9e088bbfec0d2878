"""`leakaudit completion`, and what is offered for model files and rules."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from leakaudit.errors import UsageError
from leakaudit.frontends.registry import FILE_FORMATS
from leakaudit.rules.registry import load_rules

SHELLS = ("bash", "zsh", "fish")
SUFFIXES = (*FILE_FORMATS, ".py")  # .py: the file part of path/file.py:callable


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script for completion in a shell.

    Commands, options, model files and rules are completed. To have it in every shell:

    \b
    bash  eval "$(leakaudit completion bash)"  in ~/.bashrc
    zsh   eval "$(leakaudit completion zsh)"   in ~/.zshrc
    fish  leakaudit completion fish > ~/.config/fish/completions/leakaudit.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"click writes no completion for {shell}")
    name = "leakaudit"
    click.echo(kind(ctx.find_root().command, {}, name, f"_{name.upper()}_COMPLETE").source())


def complete_target(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Model files, Python files and folders."""
    found = _paths(incomplete)
    if len(found) == 1 and found[0].endswith("/"):
        # A shell ends a word that has one completion: show what is in the folder instead.
        found = _paths(found[0]) or found
    return [CompletionItem(path) for path in found]


def _paths(incomplete: str) -> list[str]:
    head, start = os.path.split(incomplete)
    prefix = incomplete.removesuffix(start) if start else incomplete
    try:
        entries = sorted(Path(head or ".").expanduser().iterdir())
    except (OSError, RuntimeError):  # RuntimeError: nobody's home
        return []
    return [
        prefix + entry.name + ("/" if entry.is_dir() else "")
        for entry in entries
        if entry.name.startswith(start)
        and (start or not entry.name.startswith("."))
        and (entry.is_dir() or entry.suffix.lower() in SUFFIXES)
    ]


def complete_rule(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Ids of the rules, with their titles."""
    try:
        rules = load_rules(ctx.params.get("rule_folders") or ())
    except UsageError:  # a folder of rules that is wrong: said when the command runs
        rules = load_rules()
    return [
        CompletionItem(rule.id, help=rule.title)
        for rule in rules
        if rule.id.lower().startswith(incomplete.lower())
    ]


def complete_rule_or_target(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Both."""
    return complete_rule(ctx, param, incomplete) + complete_target(ctx, param, incomplete)
