"""Reporters: an AuditReport in, text out. See `interface` for the contract."""

from leakaudit.report.interface import RenderOptions, Reporter
from leakaudit.report.registry import REPORTERS, reporter

__all__ = ["REPORTERS", "RenderOptions", "Reporter", "reporter"]
