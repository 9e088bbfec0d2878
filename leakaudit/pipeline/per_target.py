"""Settings for some targets only: what they change in how those are audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from leakaudit.config.targets import TargetPattern
from leakaudit.findings import Severity
from leakaudit.frontends.interface import LoadOptions
from leakaudit.rules.rule import Rule
from leakaudit.rules.select import with_severities


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What holds for the targets that match; None, or a rule not named: what holds for all.

    Of several that match a target, the later ones win, setting by setting.
    """

    pattern: TargetPattern
    input_shapes: Mapping[str, tuple[int, ...]] | None = None
    batch_size: int | None = None
    frozen: tuple[str, ...] | None = None
    loss: str | None = None
    severities: Mapping[str, Severity] = field(default_factory=dict)


def load_options_for(
    target: str, general: LoadOptions, per_target: Sequence[TargetOptions]
) -> LoadOptions:
    """How to read this target."""
    for options in _for(target, per_target):
        if options.input_shapes is not None:
            general = replace(general, input_shapes=options.input_shapes)
        if options.batch_size is not None:
            general = replace(general, batch_size=options.batch_size)
        if options.frozen is not None:
            general = replace(general, frozen=options.frozen)
    return general


def loss_for(target: str, general: str, per_target: Sequence[TargetOptions]) -> str:
    """With which loss this target is trained."""
    for options in _for(target, per_target):
        general = options.loss or general
    return general


def rules_for(
    target: str, general: tuple[Rule, ...], per_target: Sequence[TargetOptions]
) -> tuple[Rule, ...]:
    """The rules with their severities for this target."""
    for options in _for(target, per_target):
        general = with_severities(general, options.severities)
    return general


def _for(target: str, per_target: Sequence[TargetOptions]) -> list[TargetOptions]:
    return [options for options in per_target if options.pattern.matches(target)]
