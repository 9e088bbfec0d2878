"""The sample files: current, clean, and equal to PyTorch."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from samples import (
    BRANCHING,
    EXPORTED,
    NAMES,
    SAMPLES,
    branching,
    module_at,
    network_of,
    networks,
    probes,
)

SIZE_LIMIT = 8_000_000  # bytes, all files together
SHORT_TRACE = re.compile(rb'\.py\b|/[\w.-]+/|[A-Z]:\\|File \\*"|stack_trace|__main__')
LONG_TRACES = (b"/home/", b"/root/", b"/usr/", b"site-packages", b'File "', b"stack_trace")


@pytest.fixture(scope="module")
def build() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "networks", networks)
        patch.setitem(sys.modules, "branching", branching)
        yield module_at(SAMPLES / "build.py")


def _run_onnx(path: Path, batch: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": batch})
    return output


def _assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    # Logits reach several thousand; float32 sums differ by their order.
    assert np.abs(actual - expected).max() <= 2e-5 * np.abs(expected).max()


def test_files_are_current() -> None:
    script = SAMPLES / "build.py"
    run = subprocess.run(
        [sys.executable, script, "--check"],
        capture_output=True,
        text=True,
        cwd=SAMPLES.parent,
        check=False,
    )
    assert (run.stdout, run.returncode) == ("", 0)


def test_two_builds_are_identical_and_check_sees_every_difference(
    build: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert build.main(["--output", str(tmp_path)]) == 0
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(written) == sorted(
        [f"{name}.onnx" for name in NAMES] + [f"{name}.pt2" for name in EXPORTED]
    )
    assert build.build() == written

    changed = bytearray(written["lenet.onnx"])
    changed[-100] ^= 1
    (tmp_path / "lenet.onnx").write_bytes(changed)
    members = build.read_archive(written["cnn6.pt2"])
    weights = bytearray(members["data/weights/weight_0"])
    weights[0] ^= 1
    (tmp_path / "cnn6.pt2").write_bytes(
        _archive(members | {"data/weights/weight_0": bytes(weights)})
    )
    (tmp_path / "tabular_mlp.onnx").unlink()
    (tmp_path / "stray.onnx").write_bytes(b"")
    capsys.readouterr()
    monkeypatch.setattr(build, "build", lambda: written)  # a third build takes its time
    assert build.main(["--check", "--output", str(tmp_path)]) == 1
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "cnn6.pt2",
        "lenet.onnx",
        "tabular_mlp.onnx",
        "stray.onnx",
    ]


def test_another_pytorch_version_is_not_a_difference(build: ModuleType) -> None:
    committed = (SAMPLES / "tabular_mlp.pt2").read_bytes()
    members = build.read_archive(committed)
    program = members["models/model.json"]

    newer, versions = re.subn(rb'"torch_version": "[^"]+"', b'"torch_version": "9.9"', program)
    assert versions == 1
    assert build.same_model(
        committed, _archive(members | {"models/model.json": newer, "new_member": b"1"}), ".pt2"
    )
    other = program.replace(b"aten.relu", b"aten.tanh")
    assert other != program
    assert not build.same_model(committed, _archive(members | {"models/model.json": other}), ".pt2")


def _archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"model/{name}", data)
    return buffer.getvalue()


def test_files_are_small_and_all_in_the_readme() -> None:
    files = [path for path in SAMPLES.iterdir() if path.suffix in {".onnx", ".pt2"}]
    assert len(files) == len(NAMES) + len(EXPORTED)
    assert sum(path.stat().st_size for path in files) < SIZE_LIMIT
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE)
    assert rows == [*NAMES, *BRANCHING]


def _parts(data: bytes, suffix: str) -> list[tuple[bytes, bool]]:
    """The parts of a file; the flag says whether a part is numbers, in which three characters of
    text occur by chance."""
    if suffix == ".pt2":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [
                (archive.read(name), "/data/weights/weight_" in name) for name in archive.namelist()
            ] + [(" ".join(archive.namelist()).encode(), True)]
    model = onnx.ModelProto.FromString(data)
    for tensor in model.graph.initializer:
        tensor.raw_data = b""
    return [(model.SerializeToString(), False), (data, True)]


def _traces(data: bytes, suffix: str) -> set[bytes]:
    machine = (str(SAMPLES.parent).encode(), sys.prefix.encode())
    found = set()
    for part, is_numbers in _parts(data, suffix):
        found |= {trace for trace in (*LONG_TRACES, *machine) if trace in part}
        found |= set() if is_numbers else set(SHORT_TRACE.findall(part))
    return found


def test_no_file_says_anything_about_the_machine_that_wrote_it() -> None:
    for path in SAMPLES.iterdir():
        if path.suffix in {".onnx", ".pt2"}:
            assert _traces(path.read_bytes(), path.suffix) == set(), path.name


def test_the_search_finds_the_traces_that_pytorch_leaves() -> None:
    chain = torch.nn.Sequential(OrderedDict(network_of("tabular_mlp").named_children()))
    saved = io.BytesIO()
    torch.export.save(torch.export.export(chain, (torch.zeros(1, 30),)), saved)
    assert {b".py", b"site-packages", b"stack_trace"} <= _traces(saved.getvalue(), ".pt2")


@pytest.mark.parametrize("name", EXPORTED)
def test_archives_hold_no_pickle_and_no_example(name: str) -> None:
    with zipfile.ZipFile(SAMPLES / f"{name}.pt2") as archive:
        assert archive.testzip() is None
        assert archive.read(f"{name}/data/sample_inputs/model.pt") == b""
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        members = [archive.read(member) for member in archive.namelist()]
    assert not any(data.startswith((b"PK\x03\x04", b"\x80\x02")) for data in members)


@pytest.mark.parametrize("name", NAMES)
def test_onnx_computes_what_the_network_computes(name: str) -> None:
    batch = torch.cat(probes(name))
    with torch.no_grad():
        expected = network_of(name)(batch).numpy()
    _assert_close(_run_onnx(SAMPLES / f"{name}.onnx", batch.numpy()), expected)


@pytest.mark.parametrize("name", NAMES)
def test_onnx_keeps_the_names_and_leaves_the_batch_open(name: str) -> None:
    model, network = onnx.load(SAMPLES / f"{name}.onnx"), network_of(name)
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    assert [node.name for node in model.graph.node] == [key for key, _ in network.named_children()]
    assert [value.name for value in model.graph.initializer] == list(network.state_dict())
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("name", EXPORTED)
def test_archives_load_and_compute_what_the_network_computes(name: str) -> None:
    path = SAMPLES / f"{name}.pt2"
    program = torch.export.load(path)  # noqa: TID251 our own file
    network = network_of(name)
    assert sorted(program.state_dict) == sorted(network.state_dict())
    for probe in probes(name):
        with torch.no_grad():
            _assert_close(program.module()(probe).numpy(), network(probe).numpy())
