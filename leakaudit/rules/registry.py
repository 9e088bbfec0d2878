"""Which rules there are: the built-in ones, and those in the user's folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leakaudit.errors import UsageError
from leakaudit.rules.rule import Rule, read_rule

BUILTIN_IDS = tuple(f"LA{number:03}" for number in range(1, 13))


def builtin_folder() -> Path:
    """Return where the built-in rules lie: inside an installed package, or atop a checkout."""
    here = Path(__file__).resolve().parent
    installed = here / "builtin"
    return installed if installed.is_dir() else here.parents[1] / "rules"


def load_rules(extra: Sequence[Path] = ()) -> tuple[Rule, ...]:
    """Load the built-in rules and every `*.toml` of the folders `extra`, sorted by id.

    Raises:
        UsageError: A folder or file is unreadable, holds no rule or an invalid one, or two rules
            have the same id or slug.
    """
    folder = builtin_folder()
    rules = [read_rule(folder / f"{name}.toml", f"rules/{name}.toml") for name in BUILTIN_IDS]
    for place in extra:
        rules += [read_rule(path, path.as_posix()) for path in _files(place)]
    taken: dict[str, Rule] = {}
    for rule in rules:
        for key in (rule.id, rule.slug):
            if key in taken:
                raise UsageError(f"{rule.url}: {key} is taken already by {taken[key].url}")
            taken[key] = rule
    return tuple(sorted(rules, key=lambda rule: rule.id))


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of rules")
    try:
        files = sorted(folder.glob("*.toml"))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read: {error.strerror}") from error
    if not files:
        raise UsageError(f"{folder}: no rules in it (a rule is a file such as XY001.toml)")
    return files
