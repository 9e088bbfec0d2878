"""The base of all operators, and the one for what is not understood."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator holds hyperparameters only; the `Node` that applies it names tensors."""


@dataclass(frozen=True, slots=True)
class Unsupported(Operator):
    """An operator that is not understood: it stops every path and makes the audit incomplete.

    Attributes:
        kind: The operator as the file names it, e.g. `com.microsoft::FusedMatMul`.
        reason: Why it is not understood.
    """

    kind: str
    reason: str
