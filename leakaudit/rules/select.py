"""Which rules a run applies: `--select` and `--ignore`, and names of rules in general."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from leakaudit.errors import UsageError
from leakaudit.rules.rule import Rule


def find_rule(name: str, rules: Sequence[Rule]) -> Rule:
    """The rule of this id or slug, in any case.

    Raises:
        UsageError: There is none; the text suggests the nearest.
    """
    for rule in rules:
        if name.lower() in (rule.id.lower(), rule.slug):
            return rule
    names = [rule.id for rule in rules] + [rule.slug for rule in rules]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else "`leakaudit rules` lists them"
    raise UsageError(f"there is no rule {name!r}; {hint}")


def select_rules(
    rules: Sequence[Rule], select: Sequence[str], ignore: Sequence[str]
) -> tuple[Rule, ...]:
    """The rules to apply. Each name may be a comma-separated list of ids or slugs.

    Raises:
        UsageError: A name is unknown, or nothing is left.
    """
    wanted = {rule.id for rule in _named(select, rules)} or {rule.id for rule in rules}
    wanted -= {rule.id for rule in _named(ignore, rules)}
    if not wanted:
        raise UsageError("--select and --ignore leave no rule to apply")
    return tuple(rule for rule in rules if rule.id in wanted)


def _named(names: Sequence[str], rules: Sequence[Rule]) -> list[Rule]:
    return [
        find_rule(name.strip(), rules)
        for entry in names
        for name in entry.split(",")
        if name.strip()
    ]
