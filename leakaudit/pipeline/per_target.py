"""Settings for some targets only: what they change in how those are audited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leakaudit.config.targets import TargetPattern
from leakaudit.findings import Severity


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What holds for the targets that match; what is None or not named holds for all.

    Of several that match a target, the later ones win, setting by setting.

    Attributes:
        pattern: Which targets.
        load: How they are read otherwise, by the fields of `LoadOptions`.
        loss: With which loss they are trained.
        severities: By the ids of rules.
    """

    pattern: TargetPattern
    load: Mapping[str, Any] = field(default_factory=dict)
    loss: str | None = None
    severities: Mapping[str, Severity] = field(default_factory=dict)
