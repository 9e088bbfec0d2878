"""`check --jobs`: the same report as one after the other, whatever happens to a process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from places import SAMPLES

from leakaudit.cli.main import main
from leakaudit.errors import UsageError
from leakaudit.findings import ModelReport
from leakaudit.pipeline.audit import AuditOptions
from leakaudit.pipeline.many.processes import audit_many, cores
from leakaudit.pipeline.many.work import Outcome, WorkItem, collect, perform, work_items
from leakaudit.rules.registry import load_rules

STATIC = AuditOptions(rules=load_rules())

NETWORKS = """
import os, signal, time
from pathlib import Path
import torch
from torch import nn

HERE = Path(__file__).parent

def small():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    model.input_shape = (1, 3, 8, 8)
    return model

def other():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 3))
    model.input_shape = (1, 6)
    return model

def talkative():
    print("built")
    return small()

def raising():
    raise ValueError("no weights today")

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

def threads():
    (HERE / "threads").write_text(str(torch.get_num_threads()))
    return small()

def endless():
    (HERE / f"running-{os.getpid()}").touch()
    time.sleep(600)

small_again, killed_again, endless_2, endless_3 = small, killed, endless, endless
"""


@pytest.fixture
def networks(tmp_path: Path) -> Callable[[str], str]:
    """Targets in a Python file: the name of a function gives the target."""
    file = tmp_path / "networks.py"
    file.write_text(NETWORKS)
    return lambda name: f"{file}:{name}"


def check(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments, "--format", "json"])


def timeless(text: str) -> str:
    """Everything but the times that were measured."""
    shown = re.sub(r'"seconds": [0-9.e+-]+', '"seconds": ...', text)
    assert '"seconds": ...' in shown
    return shown


def test_the_same_bytes_as_one_after_the_other(networks: Callable[[str], str]) -> None:
    targets = [
        networks("small"),
        "absent.onnx",
        networks("raising"),
        str(SAMPLES / "lenet_main.pt2"),
        str(SAMPLES / "tabular_mlp.onnx"),
        networks("other"),
    ]
    alone = check(*targets, "--jobs", "1")
    beside = check(*targets, "--jobs", "2")
    assert timeless(beside.stdout) == timeless(alone.stdout)
    assert beside.stderr == alone.stderr
    assert beside.exit_code == alone.exit_code == 3
    models = json.loads(beside.stdout)["models"]
    assert [model["target"] for model in models] == targets
    assert sum(model["error"] is not None for model in models) == 2
    statuses = {
        finding["confirmation"]["status"]
        for model in models
        for finding in model["findings"]
        if finding["confirmation"]
    }
    assert "confirmed" in statuses


def test_a_process_that_dies_costs_its_own_target_only(networks: Callable[[str], str]) -> None:
    names = ["small", "killed", "other", "killed_again", "small_again"]
    result = check(*map(networks, names), "--no-confirm", "--jobs", "2")
    assert result.exit_code == 3
    models = json.loads(result.stdout)["models"]
    assert [model["target"] for model in models] == [networks(name) for name in names]
    for name, model in zip(names, models, strict=True):
        if name.startswith("killed"):
            assert "the process that audited it died" in model["error"]
        else:
            assert model["error"] is None
            assert model["layers"]
    assert "Traceback" not in result.stderr


def test_each_process_takes_its_share_of_the_cores(
    networks: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    audit_many([(networks("threads"), STATIC), (networks("other"), STATIC)], jobs=2)
    assert int((tmp_path / "threads").read_text()) == max(1, cores() // 2)


def test_ctrl_c_ends_every_process_and_says_so_once(
    networks: Callable[[str], str], tmp_path: Path
) -> None:
    targets = [networks(name) for name in ("endless", "endless_2", "endless_3")]
    command = [sys.executable, "-m", "leakaudit", "check", *targets]
    with subprocess.Popen(
        [*command, "--no-confirm", "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal signals the whole group, so does this test
        # Jobs in the background ignore Ctrl-C and pass that on: this one is in the foreground.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        try:
            workers = wait_for(lambda: list(tmp_path.glob("running-*")), 2)
            os.killpg(running.pid, signal.SIGINT)
            stdout, stderr = running.communicate(timeout=60)
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 130
    assert stdout == ""
    assert stderr == "leakaudit: stopped\n"
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(int(worker.name.removeprefix("running-")), 0)


def test_ctrl_c_while_processes_are_started_waits_for_them(tmp_path: Path) -> None:
    # As a program of its own: the signal is sent while the first work item is handed out.
    script = tmp_path / "interrupted.py"
    script.write_text(
        "import os, signal\n"
        "from leakaudit.pipeline.audit import AuditOptions\n"
        "from leakaudit.pipeline.many.processes import _in_processes\n"
        "from leakaudit.pipeline.many.work import work_items\n"
        "def items():\n"
        "    for item in work_items([('absent.onnx', AuditOptions(()))] * 3):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        print('handed out', flush=True)\n"
        "        yield item\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        list(_in_processes(items(), 2))\n"
        "    except KeyboardInterrupt:\n"
        "        print('stopped')\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.splitlines()[-1] == "stopped", done.stderr
    assert done.stdout.count("handed out") == 3


def wait_for(look: Callable[[], list[Path]], count: int) -> list[Path]:
    for _ in range(1200):
        if len(found := look()) >= count:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{count} were expected, there are {found}")


def test_wrong_usage_is_the_same_line(networks: Callable[[str], str]) -> None:
    targets = [networks("small"), str(SAMPLES / "lenet_main.pt2"), networks("other")]
    options = ("--no-confirm", "--input-shape", "nonsense=1,2")
    alone, beside = check(*targets, *options), check(*targets, *options, "--jobs", "2")
    assert (beside.exit_code, beside.stdout) == (alone.exit_code, alone.stdout)
    assert beside.stderr == alone.stderr != ""


@pytest.mark.parametrize("jobs", ["-1", "some", "1.5", ""])
def test_a_number_of_jobs_that_is_none(jobs: str) -> None:
    result = check(str(SAMPLES / "tabular_mlp.pt2"), "--jobs", jobs)
    assert result.exit_code == 2
    assert "auto" in result.stderr


@pytest.mark.parametrize("jobs", ["auto", "0"])
def test_all_cores(jobs: str) -> None:
    targets = [str(SAMPLES / "tabular_mlp.pt2"), str(SAMPLES / "vit.pt2")]
    result = check(*targets, "--no-confirm", "-j", jobs)
    assert [model["target"] for model in json.loads(result.stdout)["models"]] == targets


def test_relative_paths_start_where_the_user_is(
    networks: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for processes that were started somewhere else."""
    audit_many([(networks("small"), STATIC)] * 2, jobs=2)
    monkeypatch.chdir(tmp_path)
    reports = audit_many([("networks.py:small", STATIC), ("networks.py:other", STATIC)], jobs=2)
    assert [report.error for report in reports] == [None, None]
    assert [report.target for report in reports] == ["networks.py:small", "networks.py:other"]


def test_progress_counts_what_is_done(networks: Callable[[str], str]) -> None:
    said: list[str] = []
    audit_many([(networks("small"), STATIC)] * 3, said.append, jobs=2)
    assert [text.split(",")[0] for text in said[-3:]] == [
        f"{done} of 3 models audited" for done in (1, 2, 3)
    ]


def items(count: int) -> list[WorkItem]:
    return work_items([(f"{name}.pt2", STATIC) for name in range(count)])


def stream_of(outcomes: Sequence[Outcome]) -> Callable[[Sequence[WorkItem]], Generator[Outcome]]:
    def stream(_items: Sequence[WorkItem]) -> Generator[Outcome]:
        yield from outcomes

    return stream


def test_reports_stand_in_order_however_they_come() -> None:
    outcomes = [Outcome(n, ModelReport(f"{n}.pt2", "pt2", None)) for n in (2, 0, 3, 1)]
    reports = collect(items(4), stream_of(outcomes), lambda _text: None)
    assert [report.target for report in reports] == ["0.pt2", "1.pt2", "2.pt2", "3.pt2"]


def test_the_first_usage_error_is_raised_as_soon_as_it_is_known() -> None:
    good = [Outcome(n, ModelReport(f"{n}.pt2", "pt2", None)) for n in range(4)]
    late, early = Outcome(3, usage_error="late"), Outcome(1, usage_error="early")
    with pytest.raises(UsageError, match="early"):
        collect(items(4), stream_of([late, good[2], early, good[0]]), lambda _text: None)
    with pytest.raises(UsageError, match="early"):  # what comes after it is not waited for
        collect(items(4), stream_of([good[0], early]), lambda _text: None)


def test_a_worker_without_the_file_says_so(tmp_path: Path) -> None:
    """A worker elsewhere, in one process with the user: the file goes after it was named."""
    file = tmp_path / "model.pt2"
    file.write_bytes((SAMPLES / "tabular_mlp.pt2").read_bytes())
    (item,) = work_items([(str(file), STATIC)])
    assert perform(item).report == audit_many([(str(file), STATIC)])[0]
    file.unlink()
    outcome = perform(item)
    assert outcome.report is not None
    assert outcome.report.error is not None
    assert str(file) in outcome.report.error
    assert "shared file system" in outcome.report.error


def test_a_worker_without_the_folder_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (item,) = work_items([("model.pt2", STATIC)])
    monkeypatch.chdir(tmp_path)
    folder.rmdir()
    outcome = perform(item)
    assert outcome.report is not None
    assert str(folder) in (outcome.report.error or "")
    assert "shared file system" in (outcome.report.error or "")
