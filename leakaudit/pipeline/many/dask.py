"""Audits on a Dask cluster: the same work items, sent to its workers by `distributed.Client`."""

from __future__ import annotations

import logging
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from queue import Empty, Queue
from typing import TYPE_CHECKING

from leakaudit import __version__
from leakaudit.errors import UsageError
from leakaudit.pipeline.audit import Progress
from leakaudit.pipeline.many.work import Outcome, Stream, WorkItem, perform

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_SECONDS = 10  # for a scheduler to answer
WORKERS_SECONDS = 60  # for a first worker to come up, or another one where none is left
_LOOK_SECONDS = 1
_FETCH_SECONDS = 10  # for a report that is there to come over
_ADDRESS = re.compile(r"((tcp|tls|ws)://)?[^\s/]+:[0-9]{1,5}")


@contextmanager
def connected(address: str, progress: Progress) -> Iterator[Client]:
    """A client of the scheduler at `address`, with at least one worker that can audit.

    Raises:
        UsageError: The extra is missing, nothing answers there, or the workers lack leakaudit.
    """
    try:
        from dask import config
        from distributed import Client
    except ImportError as error:
        raise UsageError(
            "--cluster needs distributed: install the extra with pip install 'leakaudit[cluster]'"
        ) from error
    if not _ADDRESS.fullmatch(address):
        raise UsageError(
            f"--cluster {address}: this is no address of a Dask scheduler; write tcp://host:8786"
        )
    if address.startswith("tls:") and not config.get("distributed.comm.tls.client.cert", None):
        raise UsageError(
            f"--cluster {address}: Dask's configuration names no certificate for TLS; set "
            "distributed.comm.tls (client.cert, client.key, ca-file) there"
        )
    for name in ("distributed", "distributed.client"):  # what fails is said in our words, once
        logging.getLogger(name).setLevel(logging.CRITICAL)
    progress(f"connecting to {address}")
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except OSError as error:  # a timeout is one
        raise UsageError(
            f"--cluster {address}: no Dask scheduler answers there; start one with `dask "
            "scheduler`, workers with `dask worker`, and name its address like tcp://host:8786"
        ) from error
    try:
        _check_workers(client, address)
        yield client
    finally:
        client.close()


def _check_workers(client: Client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKERS_SECONDS)
    except TimeoutError as error:
        raise UsageError(
            f"--cluster {address}: the scheduler has no worker after {WORKERS_SECONDS} seconds; "
            f"start some with `dask worker {address}`"
        ) from error
    versions = client.run(metadata.version, "leakaudit", on_error="return")
    for worker, version in sorted(versions.items()):
        if version != __version__:
            has = "has no leakaudit" if isinstance(version, Exception) else f"has {version}"
            raise UsageError(
                f"--cluster {address}: the worker {worker} {has}, this is leakaudit {__version__}; "
                "install the same version, with the same extras, on every worker"
            )


def dask_stream(client: Client) -> Stream:
    """Audits on the workers of a Dask cluster.

    Dask itself repeats the work of a worker that is gone. It gives up on a task that was on several
    such workers, also where another audit beside it killed them: these run once more, each alone.
    """
    from distributed import KilledWorker

    def stream(items: Sequence[WorkItem]) -> Generator[Outcome]:
        suspects: list[WorkItem] = []
        for item, result in _on_workers(client, items):
            if isinstance(result, KilledWorker) and len(items) > 1:
                suspects.append(item)
            else:
                yield _outcome(item, result)
        for suspect in suspects:
            for item, result in _on_workers(client, [suspect]):
                yield _outcome(item, result)

    return stream


def _outcome(item: WorkItem, result: Outcome | BaseException) -> Outcome:
    from distributed import KilledWorker

    if isinstance(result, Outcome):
        return result
    if isinstance(result, KilledWorker):
        return item.failed(
            f"{result.allowed_failures + 1} workers of the cluster died one after the other while "
            "they audited it (killed, out of memory, or a crash in native code)",
            "audit it on a machine with more memory, or leave it out",
        )
    return item.failed(
        f"the cluster gave it up ({str(result) or type(result).__name__})",
        "look at the cluster's scheduler and workers, then audit it again",
    )


def _on_workers(
    client: Client, items: Sequence[WorkItem]
) -> Generator[tuple[WorkItem, Outcome | BaseException]]:
    """What became of each item, as it comes in: its outcome, or why Dask gave it up.

    Dask waits without end for a worker; here the wait ends when there has been none for long.
    """
    settled: Queue[int] = Queue()

    def when_settled(number: int) -> None:
        waiting[number].add_done_callback(lambda _future: settled.put(number))

    # An audit is no pure function of its arguments: the file behind a name may have changed.
    waiting = {
        number: client.submit(perform, item, pure=False) for number, item in enumerate(items)
    }
    try:
        for number in waiting:
            when_settled(number)
        without = 0
        while waiting and without < WORKERS_SECONDS:
            try:
                number = settled.get(timeout=_LOOK_SECONDS)
            except Empty:
                without = 0 if _has_workers(client) else without + _LOOK_SECONDS
                continue
            try:
                result = _result(waiting[number])
            except TimeoutError:  # lost with its worker, and to be computed anew
                when_settled(number)
                continue
            del waiting[number]
            yield items[number], result
        for number in waiting:
            no_worker = ConnectionError(f"no worker left for {WORKERS_SECONDS} seconds")
            yield items[number], no_worker
    finally:
        client.cancel(list(waiting.values()))


def _result(future: Future) -> Outcome | BaseException:
    """What a settled task came to.

    Raises:
        TimeoutError: Its result is not there any more.
    """
    from distributed import KilledWorker

    if future.cancelled():
        return ConnectionError("it was cancelled, or its scheduler has gone")
    result: Outcome | BaseException
    try:
        if future.status == "error":
            result = future.exception(timeout=_FETCH_SECONDS)
        else:
            result = future.result(timeout=_FETCH_SECONDS)
    except KilledWorker as killed:  # while a result that was lost was computed anew
        result = killed
    return result


def _has_workers(client: Client) -> bool:
    try:
        return len(client.nthreads()) > 0
    except (OSError, ValueError):  # no answer from the scheduler
        return False
