"""leakaudit audits neural-network architectures for gradient leakage, and proves what it finds.

    report = leakaudit.audit(model, inputs=example)  # a module, a ModelProto, a path
    report.exit_code(fail_on="high"), report.findings, report.render("sarif")

What stands here is the public API. Its parts, torch and onnx with them, are imported when they are
first used: `import leakaudit` alone takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leakaudit.advice.search import Advice
    from leakaudit.attack.reconstruct import Reconstruction, reconstruct
    from leakaudit.errors import AuditError, LeakauditError, UsageError
    from leakaudit.findings import AuditReport, Confirmation, Finding, ModelReport, Severity, Status
    from leakaudit.graph import Graph
    from leakaudit.leakpath.path import LeakPath
    from leakaudit.pipeline.api import advise, audit, find_leak_path, load
    from leakaudit.pipeline.report import Report

__version__ = "0.1.0"

__all__ = [
    "Advice",
    "AuditError",
    "AuditReport",
    "Confirmation",
    "Finding",
    "Graph",
    "LeakPath",
    "LeakauditError",
    "ModelReport",
    "Reconstruction",
    "Report",
    "Severity",
    "Status",
    "UsageError",
    "__version__",
    "advise",
    "audit",
    "find_leak_path",
    "load",
    "reconstruct",
]

_PARTS = {
    "advice.search": ("Advice",),
    "attack.reconstruct": ("Reconstruction", "reconstruct"),
    "errors": ("AuditError", "LeakauditError", "UsageError"),
    "findings": ("AuditReport", "Confirmation", "Finding", "ModelReport", "Severity", "Status"),
    "graph": ("Graph",),
    "leakpath.path": ("LeakPath",),
    "pipeline.api": ("advise", "audit", "find_leak_path", "load"),
    "pipeline.report": ("Report",),
}
_MODULES = {name: module for module, names in _PARTS.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a part of the API when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    part = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = part
    return part


def __dir__() -> list[str]:
    """The API, for completion."""
    return __all__
