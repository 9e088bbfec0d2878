"""Work items: audits that another process runs, and what becomes of them.

They and their outcomes are pickled, our own objects between our own processes; model files are
named by path, and only read where the work is done.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from leakaudit.errors import AuditError, UsageError
from leakaudit.findings import ModelReport
from leakaudit.pipeline.audit import AuditOptions, Progress, audit, failed


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One audit for another process.

    Attributes:
        index: Its place in the report.
        target: What to audit, as the user named it.
        options: How.
        folder: What relative paths start from.
        is_file: Whether the target is a file, seen from here.
    """

    index: int
    target: str
    options: AuditOptions
    folder: str
    is_file: bool

    def failed(self, reason: str, remedy: str) -> Outcome:
        """The outcome of an audit that could not be made."""
        return Outcome(self.index, failed(self.target, AuditError(self.target, reason, remedy)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a work item: a report, or the text of a usage error."""

    index: int
    report: ModelReport | None = None
    usage_error: str = ""


Stream = Callable[[Sequence[WorkItem]], Generator[Outcome]]  # in whatever order they come

# A process audits one model at a time: the working folder belongs to the whole process, and a Dask
# worker has several threads.
_ONE_AT_A_TIME = threading.Lock()


def perform(item: WorkItem) -> Outcome:
    """Run one work item; this is what the other processes call."""
    with _ONE_AT_A_TIME, contextlib.ExitStack() as stack:
        try:
            stack.enter_context(contextlib.chdir(item.folder))
        except OSError as error:
            return item.failed(
                f"{_here()} cannot enter the folder {item.folder} ({error.strerror})",
                "give the workers the same files at the same paths (a shared file system)",
            )
        if item.is_file and not Path(item.target).is_file():
            return item.failed(
                f"{_here()} does not see this file",
                "give the workers the same files at the same paths (a shared file system)",
            )
        try:
            return Outcome(item.index, audit(item.target, item.options))
        except UsageError as error:
            return Outcome(item.index, usage_error=str(error))


def _here() -> str:
    return f"the worker on {os.uname().nodename if hasattr(os, 'uname') else 'this machine'}"


def work_items(audits: Sequence[tuple[str, AuditOptions]]) -> list[WorkItem]:
    """Work items of targets that are no folders, in the order of the report."""
    folder = str(Path.cwd())
    return [
        WorkItem(index, target, options, folder, Path(target).is_file())
        for index, (target, options) in enumerate(audits)
    ]


def collect(items: Sequence[WorkItem], stream: Stream, progress: Progress) -> list[ModelReport]:
    """The reports of all items, each exactly once and in their order.

    Raises:
        UsageError: The options do not fit a model; of several the one that comes first in order,
            which is the one that auditing one after another would meet.
    """
    reports: dict[int, ModelReport] = {}
    errors: dict[int, str] = {}
    progress(f"auditing {len(items)} models")
    outcomes = stream(items)
    try:
        for outcome in outcomes:
            if outcome.report is None:
                errors[outcome.index] = outcome.usage_error
            else:
                reports[outcome.index] = outcome.report
            first = min(errors, default=None)
            if first is not None and all(i in reports for i in range(first)):
                raise UsageError(errors[first])
            last = items[outcome.index].target
            progress(f"{len(reports)} of {len(items)} models audited, last {last}")
    finally:
        with warnings.catch_warnings():
            # joblib warns of the results that nobody collects any more.
            warnings.simplefilter("ignore")
            outcomes.close()
    return [reports[item.index] for item in items]
