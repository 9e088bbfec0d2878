"""The two errors that reach a user: wrong usage, and a target that cannot be audited."""

from __future__ import annotations

INTERRUPTED = 130  # the exit code after Ctrl-C: 128 + SIGINT, as shells report it


class LeakauditError(Exception):
    """Base of every error whose text is meant for the user.

    `exit_code` follows the contract: 2 for wrong usage, 3 where nothing could be audited.
    """

    exit_code = 2


class UsageError(LeakauditError):
    """The command line or the configuration is wrong; the text says how to mend it."""


class AuditError(LeakauditError):
    """A target that cannot be audited.

    Args:
        target: The file or object as the user named it.
        reason: What is wrong with it, one sentence, no full stop.
        remedy: What the user can do about it, one sentence, no full stop.
    """

    exit_code = 3

    def __init__(self, target: str, reason: str, remedy: str) -> None:
        super().__init__(f"{target}: {reason}; {remedy}")
        self.target = target
        self.reason = reason
        self.remedy = remedy
