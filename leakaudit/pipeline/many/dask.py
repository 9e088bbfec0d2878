"""The same work items on a Dask cluster, through joblib's Dask backend."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from importlib import metadata
from typing import TYPE_CHECKING, Any

from leakaudit import __version__
from leakaudit.errors import UsageError
from leakaudit.pipeline.audit import Progress
from leakaudit.pipeline.many.work import Outcome, Stream, WorkItem, perform

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10  # for a scheduler to answer
WORKERS_SECONDS = 60  # for a first worker to come up, or another one where none is left
_LOOK_SECONDS = 1
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


def cluster_stream(client: Client) -> Stream:
    """Audits on the workers of a cluster.

    Dask itself repeats the work of a worker that is gone. It gives up on a task that was on several
    such workers, also where another audit beside it killed them: these run once more, each alone.
    """
    from distributed import KilledWorker

    def stream(items: Sequence[WorkItem]) -> Generator[Outcome]:
        suspects: list[WorkItem] = []
        for item, result in _on_cluster(client, items):
            if isinstance(result, KilledWorker) and len(items) > 1:
                suspects.append(item)
            else:
                yield _outcome(item, result)
        for suspect in suspects:
            for item, result in _on_cluster(client, [suspect]):
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


def _on_cluster(
    client: Client, items: Sequence[WorkItem]
) -> Generator[tuple[WorkItem, Outcome | BaseException]]:
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend=_backend(client), n_jobs=-1):
        run = Parallel(return_as="generator_unordered", batch_size=1)
        yield from run(delayed(perform)(item) for item in items)


def _backend(client: Client) -> Any:
    """joblib's Dask backend, made to survive what it waits for without end.

    It leaves out the callback of a task that Dask gives up, and does not notice that no worker is
    left. Here both are results of that task: pairs of work item and outcome or exception.
    """
    from joblib._dask import DaskDistributedBackend
    from joblib.parallel import BatchedCalls

    # joblib has no types, so its class is Any to the checker.
    class Backend(DaskDistributedBackend):  # type: ignore[misc]
        def configure(self, *args: Any, **settings: Any) -> int:
            # For one thread joblib would run the audits in this very process.
            threads: int = super().configure(*args, **settings)
            return max(2, threads)

        def start_call(self) -> None:
            super().start_call()
            self.open: set[Future[Any]] = set()
            self.over = threading.Event()
            threading.Thread(
                target=_watch, args=(client, self.open, self.over), daemon=True
            ).start()

        def stop_call(self) -> None:
            self.over.set()
            super().stop_call()

        def submit(
            self, func: BatchedCalls, callback: Callable[[object], None] | None = None
        ) -> Future[Any]:
            ((_, (item,), _),) = func.items
            report = callback or (lambda _out: None)
            future: Future[Any] = super().submit(func, lambda out: report((item, out)))
            self.open.add(future)

            def finished(done: Future[Any]) -> None:
                self.open.discard(done)
                if error := done.exception():
                    report((item, error))

            future.add_done_callback(finished)
            return future

        def retrieve_result_callback(self, out: tuple[WorkItem, Any]) -> list[Any]:
            item, result = out
            if isinstance(result, BaseException):  # given up, or cancelled with the scheduler
                return [(item, result)]
            return [(item, value) for value in super().retrieve_result_callback(result)]

    return Backend(client=client)


def _watch(client: Client, open_futures: set[Future[Any]], over: threading.Event) -> None:
    """End the wait for a cluster that has had no worker for long."""
    without = 0
    while not over.wait(_LOOK_SECONDS):
        try:
            without = 0 if client.nthreads() else without + _LOOK_SECONDS
        except (OSError, ValueError):  # no answer from the scheduler
            without += _LOOK_SECONDS
        if without >= WORKERS_SECONDS:
            for future in list(open_futures):
                with suppress(InvalidStateError):  # it has just come in
                    future.set_exception(
                        ConnectionError(f"no worker left for {WORKERS_SECONDS} seconds")
                    )
            return
