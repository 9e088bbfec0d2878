"""What the fuzz targets share: the audit of a file, and the start of atheris."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType

from leakaudit.errors import LeakauditError
from leakaudit.findings import AuditReport
from leakaudit.frontends.interface import LoadOptions
from leakaudit.pipeline.audit import AuditOptions, audit
from leakaudit.report import REPORTERS, RenderOptions, reporter
from leakaudit.rules.registry import load_rules
from leakaudit.rules.rule import Rule
from leakaudit.sandbox.limits import Limits


@cache
def _rules() -> tuple[Rule, ...]:
    return load_rules()


def audited(path: Path) -> None:
    """Audit a file without running it, and render the report in every format."""
    limits = Limits(nodes=2000, elements=2**30, memory_bytes=2**30, seconds=20)
    try:
        model = audit(str(path), AuditOptions(rules=_rules(), load=LoadOptions(limits=limits)))
    except LeakauditError:
        return
    report = AuditReport("0", (model,))
    for name in REPORTERS:
        reporter(name)(report, RenderOptions(color=False, width=100, verbosity=1))


def fuzz(one_input: Callable[[bytes], None]) -> None:
    """Hand over to atheris, which looks at the branches taken in our own code."""
    import atheris

    for function in gc.get_objects():
        if isinstance(function, FunctionType) and str(function.__module__).startswith("leakaudit"):
            atheris.instrument_func(function)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
