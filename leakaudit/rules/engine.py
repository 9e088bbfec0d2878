"""Applies the rules to the facts of one model. Same facts, same findings, in the same order."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from leakaudit.errors import UsageError
from leakaudit.findings import Finding, Severity
from leakaudit.rules.expression import Value
from leakaudit.rules.rule import Rule
from leakaudit.rules.symbols import Level

SymbolValue = Value | str


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What the rules may know of one layer.

    Attributes:
        name: The layer's name for the user, unique in the model.
        operator: One of `symbols.OPERATORS`.
        fingerprint_parts: Shapes and hyperparameters, what makes this layer this layer. Never
            weights or versions: a finding in a baseline must outlive training and updates.
        symbols: Values of `symbols.LAYER_SYMBOLS`. `layer` is the name; `rho`, `margin` and
            `missing` are derived where they are not given.
    """

    name: str
    operator: str
    fingerprint_parts: tuple[str, ...]
    symbols: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the rules may know of the model: values of `symbols.MODEL_SYMBOLS`."""

    symbols: Mapping[str, SymbolValue]
    fingerprint_parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that is met: how severe, what to say, and why it was downgraded ("" if not)."""

    severity: Severity
    message: str
    downgraded_because: str


def apply(
    rules: Sequence[Rule], layers: Sequence[LayerFacts], model: ModelFacts
) -> tuple[Finding, ...]:
    """Return the findings: by layer in the given order, then by rule; those on the model last.

    Raises:
        UsageError: A rule needs a symbol that the facts do not state, or divides by zero.
    """
    ordered = sorted(rules, key=lambda rule: rule.id)
    on_layers = [rule for rule in ordered if rule.level is Level.LAYER]
    on_model = [rule for rule in ordered if rule.level is Level.MODEL]
    findings: list[Finding] = []
    for layer in layers:
        symbols = {**layer.symbols, "layer": layer.name}
        for rule in on_layers:
            match = evaluate_layer(rule, symbols) if layer.operator in rule.applies_to else None
            if match:
                findings.append(_finding(rule, match, layer.name, layer.fingerprint_parts))
    for rule in on_model:
        if match := _match(rule, model.symbols, "the model"):
            findings.append(_finding(rule, match, None, model.fingerprint_parts))
    return tuple(findings)


def evaluate_layer(rule: Rule, symbols: Mapping[str, SymbolValue]) -> Match | None:
    """Return what `rule` says of a layer with these symbols, None where it is not met.

    The caller has checked that the rule applies to the layer's operator.

    Raises:
        UsageError: The rule needs a symbol that is absent, or divides by zero.
    """
    return _match(rule, {**_derived(symbols), **symbols}, f"layer {symbols.get('layer', '')}")


def _derived(symbols: Mapping[str, SymbolValue]) -> dict[str, SymbolValue]:
    """`rho`, `margin` and `missing`, as far as what they follow from is there."""
    numbers = {
        name: Fraction(value)
        for name, value in symbols.items()
        if not isinstance(value, bool | str) and math.isfinite(value)
    }
    derived: dict[str, SymbolValue] = {}
    if {"X", "A", "B"} <= numbers.keys():
        derived["margin"] = numbers["A"] + numbers["B"] - numbers["X"]
    if {"X", "bound"} <= numbers.keys():
        # With no unknowns nothing is left open.
        derived["rho"] = numbers["bound"] / numbers["X"] if numbers["X"] else Fraction(1)
    if {"X", "bound", "unread"} <= numbers.keys():
        derived["missing"] = max(Fraction(0), numbers["X"] - numbers["unread"] - numbers["bound"])
    return derived


def _match(rule: Rule, symbols: Mapping[str, SymbolValue], where: str) -> Match | None:
    values = {name: value for name, value in symbols.items() if not isinstance(value, str)}
    try:
        if not rule.condition.evaluate(values):
            return None
        message = rule.message.render(symbols)
        downgrade = rule.downgrade
        if downgrade is None or not downgrade.condition.evaluate(values):
            return Match(rule.severity, message, "")
        return Match(downgrade.severity, message, downgrade.because.render(symbols))
    except UsageError as error:
        raise UsageError(f"rule {rule.id}, {where}: {error}") from error


def _finding(rule: Rule, match: Match, layer: str | None, parts: tuple[str, ...]) -> Finding:
    return Finding(
        rule=rule.id,
        title=rule.title,
        severity=match.severity,
        layer=layer,
        message=match.message,
        fingerprint=_fingerprint(rule.id, layer, parts),
        remedy=rule.remedy,
        url=rule.url,
        downgraded_because=match.downgraded_because,
    )


def _fingerprint(rule: str, layer: str | None, parts: tuple[str, ...]) -> str:
    # JSON keeps ("a", "bc") and ("ab", "c") apart.
    identity = json.dumps([rule, layer, *parts])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]
