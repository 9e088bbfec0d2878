"""A configuration, read and checked.

For every setting the first of these holds: the command line; the configuration's `[[target]]`
entries that match the target, the last one first; the configuration; the default. A list on the
command line replaces the configuration's list, it does not add to it. Relative paths, and patterns
for targets with a slash, start from the folder of the configuration.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from leakaudit.config.keys import IGNORE_KEYS, OPTIONS, OTHERS, TARGET_KEYS
from leakaudit.config.values import Check, Mistake, limits
from leakaudit.errors import UsageError
from leakaudit.findings import Ignore, Severity
from leakaudit.sandbox.limits import LIMITS


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """One `[[target]]`: settings for the targets that `match` fits; None where it says nothing."""

    match: str
    input_shapes: tuple[str, ...] | None = None
    batch_size: int | None = None
    frozen: tuple[str, ...] | None = None
    loss: str | None = None
    severities: Mapping[str, Severity] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Config:
    """What a configuration says.

    Attributes:
        file: Where it stands, None where there is none.
        options: Values by the long name of the option, as the command line would give them.
        targets: What to audit where the command line names nothing.
        severities: Severities by rule (id or slug).
        per_target: The `[[target]]` entries, in their order.
        ignores: The `[[ignore]]` entries, in their order.
    """

    file: Path | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    severities: Mapping[str, Severity] = field(default_factory=dict)
    per_target: tuple[TargetSettings, ...] = ()
    ignores: tuple[Ignore, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its relative paths start."""
        return self.file.parent if self.file is not None else Path()


def parse(data: Mapping[str, object], file: Path) -> Config:
    """Check the contents of a configuration.

    Args:
        data: The table as TOML gives it.
        file: Where it stands.

    Raises:
        UsageError: An unknown key or a value of the wrong type; the text names file and key.
    """
    return _Reader(file).config(data)


class _Reader:
    """Checks one file's contents; every error names the file and the key."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def config(self, data: Mapping[str, object]) -> Config:
        """The whole configuration."""
        known = [*OTHERS, *OPTIONS, "limits", "target", "ignore"]
        self.check_keys(data, known, "")
        options, others = (
            {key: self.value(data[key], check, key) for key, check in keys.items() if key in data}
            for keys in (OPTIONS, OTHERS)
        )
        if "limits" in data:
            table = data["limits"]
            if isinstance(table, dict):
                self.check_keys(table, LIMITS, "limits: ")
            options["limit"] = self.value(table, limits, "limits")
        return Config(
            file=self.file,
            options=options,
            per_target=tuple(self.target(*entry) for entry in self.entries(data, "target")),
            ignores=tuple(self.ignore(*entry) for entry in self.entries(data, "ignore")),
            # `table` has checked every value against the tables of keys.
            **others,  # type: ignore[arg-type]
        )

    def target(self, where: str, entry: Mapping[str, object]) -> TargetSettings:
        """One `[[target]]`."""
        values = self.table(entry, TARGET_KEYS, where, required=("match",))
        names = {key: key.replace("-", "_") for key in values} | {"input-shape": "input_shapes"}
        # Checked by `table`, as above.
        return TargetSettings(**{names[key]: value for key, value in values.items()})  # type: ignore[arg-type]

    def ignore(self, where: str, entry: Mapping[str, object]) -> Ignore:
        """One `[[ignore]]`."""
        values = self.table(entry, IGNORE_KEYS, where, required=("rule", "reason"))
        # Checked by `table`, as above.
        return Ignore(**values)  # type: ignore[arg-type]

    def entries(self, data: Mapping[str, object], key: str) -> list[tuple[str, dict[str, object]]]:
        """The tables of an array of tables, with what errors call each: "target 1: "."""
        entries = data.get(key, [])
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            example = (
                '`rule = "LA010"` and `reason = "..."` (a reason is required)'
                if key == "ignore"
                else '`match = "models/*.onnx"`'
            )
            self.fail(key, f"this is an array of tables: write [[{key}]] and below it {example}")
        return [(f"{key} {number}: ", entry) for number, entry in enumerate(entries, start=1)]

    def table(
        self,
        entry: Mapping[str, object],
        checks: Mapping[str, Check],
        where: str,
        required: Collection[str],
    ) -> dict[str, object]:
        """The checked values of a table in an array."""
        self.check_keys(entry, checks, where)
        values = {key: self.value(value, checks[key], where + key) for key, value in entry.items()}
        for key in required:
            given = values.get(key)
            if not isinstance(given, str) or not given.strip():
                why = ": say why this is accepted" if key == "reason" else ""
                self.fail(where + key, f"it is required and must not be empty{why}")
        return values

    def check_keys(self, data: Mapping[str, object], known: Collection[str], where: str) -> None:
        """Refuse a key that is not known, and suggest the nearest."""
        for key in data:
            # The names of limits have underscores; as on the command line, hyphens do as well.
            if key in known or key.replace("-", "_") in known:
                continue
            near = difflib.get_close_matches(key.replace("_", "-").lower(), known, n=1)
            if near:
                hint = f"did you mean {near[0]}?"
            elif key == "tool" and not where:
                hint = "outside pyproject.toml the keys stand at the top, without [tool.leakaudit]"
            else:
                hint = f"known: {', '.join(sorted(known))}"
            raise UsageError(f"{self.file}: {where}unknown key {key!r}; {hint}")

    def value(self, value: object, check: Check, key: str) -> object:
        """One value, checked."""
        try:
            return check(value, self.file.parent)
        except Mistake as mistake:
            if isinstance(value, dict) and mistake.key is not None:
                key, value = f"{key}: {mistake.key}", value[mistake.key]
            shown = repr(value)
            shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
            self.fail(key, f"{mistake}, and this is {shown}")

    def fail(self, key: str, text: str) -> NoReturn:
        """Raise the error on one key."""
        raise UsageError(f"{self.file}: {key}: {text}")
