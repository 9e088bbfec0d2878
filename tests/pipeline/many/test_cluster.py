"""`check --cluster`: a Dask cluster of worker processes, some of which die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from places import SAMPLES

from leakaudit import __version__
from leakaudit.cli.main import main
from leakaudit.errors import UsageError
from leakaudit.pipeline.many import dask as cluster

pytest.importorskip("distributed")


NETWORKS = """
import os, signal, time
from pathlib import Path
import torch
from torch import nn

RUNS = Path(__file__).parent / "runs"
RUNS.mkdir(exist_ok=True)

def first():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    model.input_shape = (1, 3, 8, 8)
    return model

second, third, fourth = first, first, first

def patient():
    # Whoever comes first waits to be killed.
    (RUNS / str(os.getpid())).touch()
    while len(list(RUNS.iterdir())) == 1:
        time.sleep(0.05)
    return first()

def deadly():
    os.kill(os.getpid(), signal.SIGKILL)
"""


@contextmanager
def started(*command: str | Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


class Cluster:
    """A scheduler and worker processes of one thread each."""

    def __init__(self, folder: Path, stack: ExitStack, **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.folder, self.stack = folder, stack
        host, port = self.address.removeprefix("tcp://").split(":")
        options = ("--host", host, "--port", port, "--no-dashboard", "--no-jupyter")
        stack.enter_context(started("distributed.cli.dask_scheduler", *options[:5], **environment))

    def worker(self, nanny: bool = False) -> subprocess.Popen[bytes]:
        """Start a worker; a nanny replaces a worker that died, and is then what is returned."""
        return self.stack.enter_context(
            started(
                "distributed.cli.dask_worker",
                self.address,
                "--nthreads=1",
                "--nanny" if nanny else "--no-nanny",
                "--no-dashboard",
                "--local-directory",
                self.folder,
            )
        )

    def wait_for_workers(self, count: int) -> None:
        from distributed import Client

        with Client(self.address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=120)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def targets(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "networks.py"
    file.write_text(NETWORKS)
    names = ("first", "second", "third", "fourth", "patient", "deadly")
    return {name: f"{file}:{name}" for name in names}


def check(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments, "--no-confirm", "--format", "json"])


def errors_of(text: str) -> dict[str, str | None]:
    """Per target its error, in order; every target is there once."""
    models = json.loads(text)["models"]
    assert len({model["target"] for model in models}) == len(models)
    assert all(model["layers"] for model in models if model["error"] is None)
    return {model["target"]: model["error"] for model in models}


def test_a_worker_is_killed_and_every_model_is_reported_once(
    targets: dict[str, str], tmp_path: Path, stack: ExitStack
) -> None:
    dask = Cluster(tmp_path, stack)
    workers = {worker.pid: worker for worker in (dask.worker(), dask.worker())}
    dask.wait_for_workers(2)
    given = [
        targets["first"],
        targets["patient"],
        str(SAMPLES / "tabular_mlp.pt2"),
        targets["second"],
        "absent.onnx",
        targets["third"],
    ]
    command = [sys.executable, "-m", "leakaudit", "check"]
    with subprocess.Popen(
        [*command, *given, "--cluster", dask.address, "--no-confirm", "--format", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        killed = the_one_that_waits(tmp_path / "runs")
        assert killed in workers  # a worker process, and the work item is running in it
        assert running.poll() is None
        os.kill(killed, signal.SIGKILL)
        stdout, stderr = running.communicate(timeout=120)
    assert workers[killed].wait(20) == -signal.SIGKILL
    assert {int(run.name) for run in (tmp_path / "runs").iterdir()} == set(workers)
    errors = errors_of(stdout)
    assert list(errors) == given
    assert [target for target, error in errors.items() if error] == ["absent.onnx"]
    assert running.returncode == 3
    assert stderr.startswith("leakaudit: absent.onnx")  # and nothing about the cluster
    assert len(stderr.splitlines()) == 1
    assert stdout == check(*given).stdout  # to the byte what one process says


def the_one_that_waits(runs: Path) -> int:
    for _ in range(1200):
        found = list(runs.iterdir()) if runs.exists() else []
        if found:
            return int(found[0].name)
        time.sleep(0.1)
    raise AssertionError("the audit never began")


def test_a_model_that_kills_every_worker_is_the_only_one_to_fail(
    targets: dict[str, str], tmp_path: Path, stack: ExitStack
) -> None:
    """One death is enough for Dask here: it gives up what ran beside it as well."""
    dask = Cluster(tmp_path, stack, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
    dask.worker(nanny=True)
    dask.wait_for_workers(1)
    given = [targets[name] for name in ("first", "deadly", "second", "third")]
    result = check(*given, "--cluster", dask.address)
    errors = errors_of(result.stdout)
    assert list(errors) == given
    assert [target for target, error in errors.items() if error] == [targets["deadly"]]
    assert "1 workers of the cluster died" in str(errors[targets["deadly"]])
    assert result.exit_code == 3
    assert "Traceback" not in result.stderr


def test_no_worker_is_left(
    targets: dict[str, str], tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    dask = Cluster(tmp_path, stack)
    dask.worker()
    dask.wait_for_workers(1)
    monkeypatch.setattr(cluster, "WORKERS_SECONDS", 2)
    given = [targets[name] for name in ("deadly", "first", "second")]
    result = check(*given, "--cluster", dask.address)
    errors = errors_of(result.stdout)
    assert list(errors) == given
    assert "no worker left for 2 seconds" in str(errors[targets["deadly"]])
    assert result.exit_code == 3


def usage_error(*arguments: str) -> str:
    result = check(str(SAMPLES / "tabular_mlp.pt2"), *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.splitlines()
    return line


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        line = usage_error("--cluster", address)
    assert f"--cluster {address}: no Dask scheduler answers there" in line
    assert "dask scheduler" in line


def test_a_scheduler_without_workers(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    dask = Cluster(tmp_path, stack)
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 60)
    monkeypatch.setattr(cluster, "WORKERS_SECONDS", 1)
    assert f"dask worker {dask.address}" in usage_error("--cluster", dask.address)


@pytest.mark.parametrize("address", ["", "host", "tcp://host:port", "http://host:1", "tcp://:1/"])
def test_no_address(address: str) -> None:
    assert "write tcp://host:8786" in usage_error("--cluster", address)


def test_tls_without_certificates() -> None:
    assert "distributed.comm.tls" in usage_error("--cluster", "tls://host:8786")


def test_jobs_and_cluster_exclude_each_other() -> None:
    line = usage_error("--cluster", "tcp://host:8786", "--jobs", "2")
    assert "--jobs" in line
    assert "--cluster" in line


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "pip install 'leakaudit[cluster]'" in usage_error("--cluster", "tcp://host:8786")


@pytest.mark.parametrize(
    ("version", "said"),
    [("0.0.1", "has 0.0.1"), (ModuleNotFoundError("leakaudit"), "has no leakaudit")],
)
def test_workers_with_another_version_or_none(version: object, said: str) -> None:
    def run(function: Any, *arguments: str, on_error: str) -> dict[str, object]:
        return {"tcp://one:1": __version__, "tcp://two:1": version}

    client: Any = SimpleNamespace(run=run, wait_for_workers=lambda count, timeout: None)
    with pytest.raises(UsageError, match=f"tcp://two:1 {said}"):
        cluster._check_workers(client, "tcp://host:8786")
