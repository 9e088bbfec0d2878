"""From settings, of the command line or of a call in Python, to how an audit is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from leakaudit.errors import UsageError
from leakaudit.findings import Severity
from leakaudit.frontends.interface import LoadOptions
from leakaudit.pipeline.audit import AuditOptions, require_confirmation
from leakaudit.pipeline.choices import DEVICES, GRADIENT_DTYPES, LOSSES, require_choice
from leakaudit.pipeline.per_target import TargetOptions
from leakaudit.rules.rule import Rule
from leakaudit.rules.select import select_rules, with_severities


def audit_options(
    rules: Sequence[Rule],
    load: LoadOptions,
    *,
    select: Sequence[str],
    ignore: Sequence[str],
    loss: str,
    confirm: bool,
    device: str,
    gradient_dtype: str,
    seed: int,
    probe: Path | None,
    time_budget: float | None,
    save_images: Path | None,
    severities: Mapping[str, Severity] | None = None,
    per_target: tuple[TargetOptions, ...] = (),
) -> AuditOptions:
    """Put together how to audit. Without `confirm` nothing is imported for the confirmation.

    Args:
        rules: All rules there are.
        load: How to read a model.
        select, ignore: Ids or slugs of the rules to apply (none: all), and not to apply.
        loss: One of `LOSSES`.
        confirm: Whether to run the reconstruction; the next five are about it.
        device, gradient_dtype: One of `DEVICES` and of `GRADIENT_DTYPES`.
        seed: Of whatever is drawn.
        probe: Picture to reconstruct instead of a synthetic one.
        time_budget: Seconds per model.
        save_images: Folder for pictures of what is reconstructed.
        severities: Other severities than the rules' own, by id.
        per_target: What differs for some targets.

    Raises:
        UsageError: A setting is not allowed, no rule is left, or confirmation cannot run.
    """
    require_choice("--loss", loss, LOSSES)
    require_choice("--device", device, DEVICES)
    require_choice("--gradient-dtype", gradient_dtype, GRADIENT_DTYPES)
    how_to_confirm = None
    if confirm:
        require_confirmation()
        from leakaudit.confirm.confirm import ConfirmOptions

        how_to_confirm = ConfirmOptions(
            device=device,
            gradient_dtype=gradient_dtype,
            seed=seed,
            probe=probe,
            time_budget=time_budget,
        )
    elif save_images or probe:
        raise UsageError("--probe and --save-images need the confirmation: leave out --no-confirm")
    return AuditOptions(
        rules=select_rules(with_severities(rules, severities or {}), select, ignore),
        load=load,
        loss=loss,
        confirm=how_to_confirm,
        save_images=save_images,
        per_target=per_target,
    )
