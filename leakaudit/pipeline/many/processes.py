"""Several audits at a time: in processes of this machine here, on Dask's workers by `dask`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from leakaudit.errors import UsageError
from leakaudit.findings import ModelReport
from leakaudit.pipeline.audit import AuditOptions, Progress, audit_each
from leakaudit.pipeline.many.dask import connected, dask_stream
from leakaudit.pipeline.many.work import Outcome, Stream, WorkItem, collect, perform, work_items


def process_stream(processes: int) -> Stream:
    """Audits in processes of this machine.

    A process that dies takes down all that run beside it (the pool cannot tell which one it was).
    What ran then is run again, each audit alone, so that only one that died while nothing else ran
    is reported as failed.
    """

    def stream(items: Sequence[WorkItem]) -> Generator[Outcome]:
        waiting = [list(items)]
        while waiting:
            group = waiting.pop()
            done: set[int] = set()
            try:
                for outcome in _in_processes(group, processes):
                    done.add(outcome.index)
                    yield outcome
            except BrokenProcessPool:
                left = [item for item in group if item.index not in done]
                if len(left) == len(group) == 1:
                    yield group[0].failed(
                        "the process that audited it died (killed, out of memory, or a crash in "
                        "native code)",
                        "audit it alone and with less around it, or leave it out",
                    )
                    continue
                # Work starts in order: what ran when the pool broke is among the first ones.
                suspects, rest = left[:processes], left[processes:]
                waiting += [[item] for item in suspects]
                waiting += [rest] if rest else []

    return stream


def _in_processes(items: Sequence[WorkItem], processes: int) -> Generator[Outcome]:
    from joblib import Parallel, delayed, parallel_config

    # At least two: for one, joblib would run the audit in this very process. Each worker gets its
    # share of the cores for the threads of torch, unless the user's OMP_NUM_THREADS says otherwise.
    with parallel_config(
        backend="loky",
        n_jobs=max(2, processes),
        # Ctrl-C reaches every process of the terminal; the one that has the work decides.
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ):
        run = Parallel(return_as="generator_unordered", batch_size=1, max_nbytes=None)
        with _interrupts_held() as held:  # one while processes are started leaves locks behind
            outcomes = run(delayed(perform)(item) for item in items)
        if held:
            outcomes.throw(KeyboardInterrupt())  # ends the processes, and comes back
        yield from outcomes


@contextmanager
def _interrupts_held() -> Iterator[list[int]]:
    """Ctrl-C only adds to the list that the block is given."""
    held: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield held  # signals are the main thread's
        return
    before = signal.signal(signal.SIGINT, lambda number, _frame: held.append(number))
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, before)


def cores() -> int:
    """The cores that this process may use."""
    from joblib import cpu_count

    return int(cpu_count())


def audit_many(
    audits: Sequence[tuple[str, AuditOptions]],
    progress: Progress = lambda _text: None,
    *,
    jobs: int = 1,
    cluster: str | None = None,
) -> list[ModelReport]:
    """Audit several targets (no folders), several at a time; the reports are in their order.

    They run in `jobs` processes of this machine, 0 for one per core, or else on the workers of the
    Dask scheduler at the address `cluster`.

    Raises:
        UsageError: The options do not fit a model, or the cluster cannot be used.
    """
    if cluster is not None:
        if jobs != 1:
            raise UsageError(
                "--jobs is for this machine and --cluster decides itself how many audits run at a "
                "time: leave one of them out"
            )
        with connected(cluster, progress) as client:
            return collect(work_items(audits), dask_stream(client), progress)
    processes = min(jobs or cores(), len(audits))
    if processes <= 1:
        return audit_each(audits, progress)
    return collect(work_items(audits), process_stream(processes), progress)
