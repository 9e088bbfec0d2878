"""The helper process: what goes wrong in it stays in it, and becomes a sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from corpus_onnx import good_model

from leakaudit.cli.main import main
from leakaudit.errors import AuditError
from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.onnx import native as onnx_native
from leakaudit.frontends.onnx.reader import load
from leakaudit.sandbox import helper as isolate
from leakaudit.sandbox.helper import Helper, HelperDied, HelperFailed
from leakaudit.sandbox.limits import Limits

needs_resource = pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")


@pytest.fixture(autouse=True)
def every_file_has_its_own_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in use; elsewhere tests share one."""
    monkeypatch.setattr(onnx_native, "Helper", Helper)


@pytest.fixture(autouse=True)
def tasks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper imports from where packages are installed; here also from this folder."""
    folders = isolate._folders
    here = str(Path(__file__).parent)
    monkeypatch.setattr(isolate, "_folders", lambda packages: [*folders(packages), here])


def helper(limits: Limits | None = None) -> Helper:
    return Helper("helper_tasks", (), limits or Limits())


@pytest.fixture
def process() -> Iterator[Helper]:
    with helper() as made:
        yield made


def test_bytes_come_back_as_they_went(process: Helper) -> None:
    parts = [b"", b"\0\xff" * 70_000, b"x"]
    assert process.ask([b"echo", *parts]) == parts
    assert process.ask([b"echo"]) == []


def test_error_is_named_without_its_text_and_the_helper_lives_on(process: Helper) -> None:
    with pytest.raises(HelperFailed, match=r"^ArithmeticError$"):
        process.ask([b"raise"])
    assert process.ask([b"echo", b"still here"]) == [b"still here"]


def test_what_is_printed_does_not_get_among_the_replies(process: Helper) -> None:
    assert process.ask([b"print"]) == [b"printed"]
    assert process.ask([b"echo", b"1"]) == [b"1"]


def test_crash_is_named(process: Helper) -> None:
    with pytest.raises(HelperDied, match=r"crashed \(SIGSEGV\)"):
        process.ask([b"crash"])
    with pytest.raises(HelperDied):
        process.ask([b"echo"])


def test_end_is_named(process: Helper) -> None:
    with pytest.raises(HelperDied, match="ended with code 7"):
        process.ask([b"exit"])


@pytest.mark.parametrize("task", [b"sleep", b"compute"])
def test_too_long_is_ended(task: bytes) -> None:
    with helper(Limits(seconds=1)) as made, pytest.raises(HelperDied, match="more than 1 seconds"):
        made.ask([task])


@needs_resource
def test_too_much_memory_is_refused_and_no_more() -> None:
    with helper(Limits(memory_bytes=300 * 2**20)) as made:
        with pytest.raises(HelperFailed, match="MemoryError"):
            made.ask([b"allocate", str(400 * 2**20).encode()])
        assert made.ask([b"allocate", str(50 * 2**20).encode()]) == [str(50 * 2**20).encode()]


@needs_resource
def test_nothing_can_be_written(process: Helper, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises((HelperFailed, HelperDied)):
        process.ask([b"write", os.fsencode(path)])
    assert not path.exists() or path.read_bytes() == b""


def test_secrets_of_the_environment_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/evil")
    with helper() as made:
        names = made.ask([b"environment"])
    assert b"CI_TOKEN" not in names
    assert b"PYTHONPATH" not in names


def test_open_files_stay_outside(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as stream, helper() as made:
        os.set_inheritable(stream.fileno(), True)
        assert len(made.ask([b"descriptors"])) <= 1  # the channel of the replies


def test_closing_ends_it_whatever_it_does() -> None:
    made = helper()
    made.send([b"compute"])
    made.close()
    assert made._process.poll() is not None


def test_no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(HelperDied, match="cannot be started"):
        helper()


# --- as the ONNX frontend uses it -----------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "net.onnx"
    path.write_bytes(good_model().SerializeToString())
    return str(path)


WORKER = """
import os, signal
from leakaudit.frontends.onnx import worker as onnx_worker
def handle(parts):
    if parts[:2] == [b"infer node", b"Sigmoid"]:
        os.kill(os.getpid(), signal.{signal})
    return onnx_worker.handle(parts)
"""


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_crash_of_shape_inference_is_an_audit_error(
    name: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crashing_worker.py").write_text(WORKER.format(signal=name))
    folders = isolate._folders
    monkeypatch.setattr(isolate, "_folders", lambda names: [*folders(names), str(tmp_path)])
    monkeypatch.setattr(onnx_native, "_WORKER", "crashing_worker")
    with pytest.raises(AuditError) as caught:
        load(model, LoadOptions())
    assert f"it could not be audited: onnx's shape inference of 'Sigmoid' crashed ({name})" in str(
        caught.value
    )
    assert caught.value.exit_code == 3


@needs_resource
def test_want_of_memory_is_an_audit_error(model: str) -> None:
    with pytest.raises(AuditError, match="--limit memory_bytes"):
        load(model, LoadOptions(limits=Limits(memory_bytes=2**23)))


def test_the_parent_runs_no_shape_inference(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The point of it all: what reads beyond its memory is not in this process."""
    import onnx.inliner

    def forbidden(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("native code in the process of the audit")

    for name in ("infer_shapes", "infer_node_outputs"):
        monkeypatch.setattr(onnx.shape_inference, name, forbidden)
    monkeypatch.setattr(onnx.inliner, "inline_local_functions", forbidden)
    graph = load(model, LoadOptions())
    assert graph.tensors["h2"].shape == (1, 2, 3, 3)
    np.testing.assert_array_equal(graph.weights.load("shape"), [1, -1])


def test_no_helper_is_left_behind(model: str) -> None:
    """Each load ends its helper, also where it fails."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not children.exists():
        pytest.skip("needs /proc")
    before = children.read_text().split()
    load(model, LoadOptions())
    with pytest.raises(AuditError):
        load(model, LoadOptions(limits=Limits(elements=1)))
    assert children.read_text().split() == before


# --- as the comparison with onnxruntime uses it ---------------------------------------------------


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed (SIGSEGV)"),
        ("bytearray(2**50)", "MemoryError"),
        ("time.sleep(600)", "took more than 3 seconds"),
        ("return [b'y', b'object', b'1', bytes(8)]", "not plain tensors"),
        ("return [b'y', b'float32', b'1,5']", "not plain tensors"),
    ],
)
def test_crash_of_onnxruntime_is_a_comparison_that_failed(
    task: str, reason: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_check = pytest.importorskip("leakaudit.confirm.onnxruntime_check")
    source = f"import os, signal, time\ndef handle(parts):\n    {task}\n"
    (tmp_path / "crashing_runner.py").write_text(source)
    folders = isolate._folders
    monkeypatch.setattr(isolate, "_folders", lambda names: [*folders(names), str(tmp_path)])
    monkeypatch.setattr(onnx_check, "_RUNNER", "crashing_runner")
    limits = ["--limit", "seconds=3"] if "seconds" in reason else []
    result = CliRunner().invoke(main, ["check", model, "--isolated", "--no-progress", *limits])
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 3
    assert "onnxruntime cannot run it" in line or "its outputs are" in line
    assert reason in line
    assert "--no-confirm" in line
