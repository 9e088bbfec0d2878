"""From settings, of the command line or of a call in Python, to how an audit is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leakaudit.errors import UsageError
from leakaudit.frontends.interface import LoadOptions
from leakaudit.pipeline.audit import AuditOptions, require_confirmation
from leakaudit.pipeline.choices import DEVICES, GRADIENT_DTYPES, LOSSES, require_choice
from leakaudit.pipeline.per_target import TargetOptions
from leakaudit.rules.rule import Rule
from leakaudit.rules.select import select_rules


def audit_options(
    settings: Mapping[str, Any],
    rules: Sequence[Rule],
    load: LoadOptions,
    per_target: tuple[TargetOptions, ...] = (),
) -> AuditOptions:
    """Put together how to audit. Without `confirm` nothing is imported for the confirmation.

    Args:
        settings: By the keywords of `leakaudit.audit`, which says what they mean; paths as `Path`.
        rules: All rules there are.
        load: How to read a model.
        per_target: What differs for some targets.

    Raises:
        UsageError: A setting is not allowed, no rule is left, or confirmation cannot run.
    """
    require_choice("--loss", settings["loss"], LOSSES)
    require_choice("--device", settings["device"], DEVICES)
    require_choice("--gradient-dtype", settings["gradient_dtype"], GRADIENT_DTYPES)
    how_to_confirm = None
    if settings["confirm"]:
        require_confirmation()
        from leakaudit.confirm.confirm import ConfirmOptions

        names = ("device", "gradient_dtype", "seed", "probe", "time_budget")
        how_to_confirm = ConfirmOptions(**{name: settings[name] for name in names})
    elif settings["save_images"] or settings["probe"]:
        raise UsageError("--probe and --save-images need the confirmation: leave out --no-confirm")
    return AuditOptions(
        rules=select_rules(rules, settings["select"], settings["ignore"]),
        load=load,
        loss=settings["loss"],
        confirm=how_to_confirm,
        save_images=settings["save_images"],
        per_target=per_target,
    )
