"""What can be chosen by name, for the command line and for Python alike."""

from __future__ import annotations

from leakaudit.errors import UsageError

LOSSES = ("auto", "cross-entropy", "bce", "mse")
DEVICES = ("auto", "cpu", "cuda")
GRADIENT_DTYPES = ("float64", "float32", "bfloat16", "float16")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Check that a value is one of those there are.

    Raises:
        UsageError: It is another.
    """
    if value not in choices:
        raise UsageError(f"{name} {value!r}: use one of {', '.join(choices)}")
