"""A rule: when is a layer or a model worth a finding, and what is said then. Read from TOML."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from leakaudit.errors import UsageError
from leakaudit.findings import Severity
from leakaudit.rules.expression import Expression, ExpressionError, parse_condition
from leakaudit.rules.message import Template, template
from leakaudit.rules.symbols import OPERATORS, Kind, Level, symbols_of

PRECISIONS = ("very-high", "high", "medium", "low")  # SARIF's scale: how rarely it is wrong
MAX_BYTES = 64 * 1024

_ID = re.compile(r"[A-Z]{2,8}[0-9]{3}")
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TEXTS = ("id", "slug", "title", "level", "severity", "precision", "condition", "message", "remedy")
_REQUIRED = (*_TEXTS, "why", "references")
_DOWNGRADE = ("condition", "severity", "because")


@dataclass(frozen=True, slots=True)
class Downgrade:
    """Where `condition` holds too, the finding has this severity, with `because` as the reason."""

    condition: Expression
    severity: Severity
    because: Template


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        id: Such as `LA001`; the file is named after it.
        slug: The same in words, such as `equations-reach-unknowns`.
        title: One line.
        level: Whether it looks at each layer or at the model.
        severity: Of its findings, unless `downgrade` lowers it.
        precision: One of `PRECISIONS`.
        applies_to: Operators of the layers it looks at; empty at model level.
        condition: In the symbols of its level; it is met where this holds.
        downgrade: When the finding is less severe, if ever.
        message: What the finding says.
        why: The mathematics, in words; paragraphs are parted by blank lines.
        remedy: What to do, one paragraph.
        references: Where it comes from.
        url: Where the rule is written, relative.
    """

    id: str
    slug: str
    title: str
    level: Level
    severity: Severity
    precision: str
    applies_to: tuple[str, ...]
    condition: Expression
    downgrade: Downgrade | None
    message: Template
    why: str
    remedy: str
    references: tuple[str, ...]
    url: str


def read_rule(path: Path, url: str) -> Rule:
    """Read the rule in the file `path`.

    Raises:
        UsageError: The file is unreadable or not a valid rule; the text names file and mistake.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{path}: longer than {MAX_BYTES} bytes, this is no rule")
    try:
        data = tomllib.loads(raw.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    rule = parse_rule(data, str(path), url)
    if path.stem != rule.id:
        raise UsageError(f"{path}: the rule {rule.id} belongs in a file named {rule.id}.toml")
    return rule


def parse_rule(data: Mapping[str, Any], source: str, url: str) -> Rule:
    """Check the contents of a rule file.

    Args:
        data: The file as nested mappings.
        source: The file's name, for error messages.
        url: `Rule.url`.

    Raises:
        UsageError: Anything missing, unknown, of the wrong type or not allowed.
    """
    return _Reader(source).rule(data, url)


class _Reader:
    """Checks one file's contents; every error names the file and the key."""

    def __init__(self, source: str) -> None:
        self.source = source

    def rule(self, data: Mapping[str, Any], url: str) -> Rule:
        self.check_keys(data, _REQUIRED, ("applies_to", "downgrade"), "")
        text = {key: self.text(data[key], key) for key in _TEXTS}
        self.check_pattern(text["id"], "id", _ID, "two to eight capitals and three digits: LA001")
        self.check_pattern(text["slug"], "slug", _SLUG, "small letters and hyphens")
        level = Level(self.choice(text["level"], "level", tuple(Level)))
        severity = self.severity(text["severity"], "severity")
        return Rule(
            id=text["id"],
            slug=text["slug"],
            title=text["title"],
            level=level,
            severity=severity,
            precision=self.choice(text["precision"], "precision", PRECISIONS),
            applies_to=self.applies_to(data, level),
            condition=self.condition(text["condition"], "condition", level),
            downgrade=self.downgrade(data, level, severity),
            message=self.template(text["message"], "message", level),
            why=self.text(data["why"], "why", paragraphs=True),
            remedy=text["remedy"],
            references=self.texts(data["references"], "references"),
            url=url,
        )

    def applies_to(self, data: Mapping[str, Any], level: Level) -> tuple[str, ...]:
        if level is Level.MODEL:
            if "applies_to" in data:
                self.fail("applies_to: a rule on the model applies to no single operator")
            return ()
        if "applies_to" not in data:
            self.fail("the key applies_to is missing (a rule on layers needs it)")
        names = self.texts(data["applies_to"], "applies_to")
        for name in names:
            self.choice(name, "applies_to", OPERATORS)
        if len(set(names)) < len(names):
            self.fail("applies_to: an operator stands there twice")
        return names

    def downgrade(
        self, data: Mapping[str, Any], level: Level, severity: Severity
    ) -> Downgrade | None:
        if "downgrade" not in data:
            return None
        part = data["downgrade"]
        if not isinstance(part, dict):
            self.fail("downgrade: must be a table with the keys " + ", ".join(_DOWNGRADE))
        self.check_keys(part, _DOWNGRADE, (), "downgrade.")
        text = {key: self.text(part[key], f"downgrade.{key}") for key in _DOWNGRADE}
        lower = self.severity(text["severity"], "downgrade.severity")
        if lower.at_least(severity):
            self.fail(f"downgrade.severity: {lower} is not lower than {severity}")
        return Downgrade(
            condition=self.condition(text["condition"], "downgrade.condition", level),
            severity=lower,
            because=self.template(text["because"], "downgrade.because", level),
        )

    def condition(self, text: str, key: str, level: Level) -> Expression:
        symbols = symbols_of(level)
        usable = frozenset(name for name, it in symbols.items() if it.kind is not Kind.TEXT)
        try:
            expression = parse_condition(text, usable)
        except ExpressionError as error:
            self.fail(f"{key}: {error}")
        for name in sorted(expression.names):
            used = Kind.FLAG if name in expression.flags else Kind.NUMBER
            if used is not symbols[name].kind:
                self.fail(f"{key}: {name} is a {symbols[name].kind}, used as a {used} in {text!r}")
        return expression

    def template(self, text: str, key: str, level: Level) -> Template:
        try:
            made = template(text)
        except UsageError as error:
            self.fail(f"{key}: {error}")
        for name in sorted(made.fields - symbols_of(level).keys()):
            self.fail(f"{key}: {{{name}}} is no symbol{self.hint(name, symbols_of(level))}")
        return made

    def severity(self, text: str, key: str) -> Severity:
        return Severity(self.choice(text, key, tuple(Severity)))

    def choice(self, text: str, key: str, allowed: Collection[str]) -> str:
        if text not in allowed:
            self.fail(f"{key}: {text!r} is none of {', '.join(allowed)}{self.hint(text, allowed)}")
        return text

    def texts(self, value: object, key: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not value:
            self.fail(f"{key}: must be a list of at least one text")
        return tuple(self.text(entry, key) for entry in value)

    def text(self, value: object, key: str, paragraphs: bool = False) -> str:
        """Undo the line breaks of the file; blank lines part paragraphs."""
        if not isinstance(value, str) or not value.strip():
            self.fail(f"{key}: must be a text, and not empty")
        parts = [" ".join(part.split()) for part in re.split(r"\n\s*\n", value.strip())]
        if len(parts) > 1 and not paragraphs:
            self.fail(f"{key}: must be one paragraph")
        if not all(part.isprintable() for part in parts):
            self.fail(f"{key}: control characters are not allowed")
        return "\n\n".join(parts)

    def check_keys(
        self, data: Mapping[str, Any], required: Collection[str], optional: Collection[str], at: str
    ) -> None:
        known = (*required, *optional)
        for key in data:
            if key not in known:
                self.fail(f"unknown key {at}{key}{self.hint(key, known)}")
        if missing := [at + key for key in required if key not in data]:
            keys = "the keys" if len(missing) > 1 else "the key"
            self.fail(f"{keys} {', '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing")

    def check_pattern(self, text: str, key: str, pattern: re.Pattern[str], form: str) -> None:
        if not pattern.fullmatch(text):
            self.fail(f"{key}: {text!r} is not of the form {form}")

    def hint(self, word: str, known: Collection[str]) -> str:
        close = difflib.get_close_matches(word, list(known), 1)
        return f"; did you mean {close[0]}?" if close else ""

    def fail(self, reason: str) -> NoReturn:
        raise UsageError(f"{self.source}: {reason}")
