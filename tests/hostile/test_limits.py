"""Limits: named where they stop an audit, and raised as the message says."""

from __future__ import annotations

import sys
import threading
import zipfile
from dataclasses import fields
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result
from corpus_onnx import good_model
from corpus_onnx_models import model_cases
from corpus_pt2 import BASE
from places import ROOT

from leakaudit.cli.main import main
from leakaudit.errors import AuditError, UsageError
from leakaudit.sandbox.limits import LIMITS, Limits, bounded_memory, parse_limits


def check(target: Path, *options: str) -> Result:
    arguments = ["check", str(target), "--no-confirm", "--isolated", "--format", "json", *options]
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(good_model().SerializeToString())
    return path


@pytest.mark.parametrize(
    ("limit", "enough"),
    [("file_bytes", 10_000), ("nodes", 6), ("axes", 4), ("elements", 147)],
)
def test_onnx_limit_is_exact_and_can_be_raised(limit: str, enough: int, onnx_file: Path) -> None:
    if limit == "file_bytes":
        enough = onnx_file.stat().st_size
    assert check(onnx_file, "--limit", f"{limit}={enough}").exit_code == 1
    result = check(onnx_file, "--limit", f"{limit}={enough - 1}")
    assert result.exit_code == 3
    (line,) = result.stderr.splitlines()
    assert f"is {enough}, and the limit {limit} is {enough - 1}" in line
    # The remedy, followed to the letter, helps.
    remedy = line.rpartition("raise it with ")[2].split()
    assert remedy == ["--limit", f"{limit}={enough}"]
    assert check(onnx_file, *remedy).exit_code == 1


def figures_of_archive() -> dict[str, int]:
    with zipfile.ZipFile(BASE) as archive:
        infos = archive.infolist()
    return {
        "file_bytes": BASE.stat().st_size,
        "members": len(infos),
        "unpacked_bytes": sum(info.file_size for info in infos),
        "json_bytes": max(i.file_size for i in infos if i.filename.endswith("models/model.json")),
        "nodes": 3,
        "axes": 2,
        "elements": 64 * 30,
    }


@pytest.mark.parametrize("limit", figures_of_archive())
def test_pt2_limit_is_exact_and_can_be_raised(limit: str) -> None:
    enough = figures_of_archive()[limit]
    assert check(BASE, "--limit", f"{limit}={enough}").exit_code == 1
    result = check(BASE, "--limit", f"{limit}={enough - 1}")
    assert result.exit_code == 3
    assert f"is {enough}, and the limit {limit} is {enough - 1}" in result.stderr


def test_nesting_is_exact(tmp_path: Path) -> None:
    (case,) = (case for case in model_cases() if case.name == "onnx: 20 nested conditions")
    target = case.write(tmp_path)
    assert "the limit nesting" not in check(target, "--limit", "nesting=21").stderr
    result = check(target, "--limit", "nesting=20")
    assert result.exit_code == 3
    assert "the depth of its subgraphs is 21, and the limit nesting is 20" in result.stderr


def test_external_data_are_summed(onnx_file: Path) -> None:
    model = onnx.load(onnx_file)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
    model.graph.initializer.pop()  # the shape, which the audit needs
    model.graph.initializer.append(good_model().graph.initializer[-1])
    onnx_file.write_bytes(model.SerializeToString())
    (onnx_file.parent / "weights.bin").write_bytes(bytes(4 * 90))
    numbers = 3 * 2 * 9 + 3 + 2 * 3 * 9 + 2 + 5 * 18 + 5
    assert check(onnx_file, "--limit", f"external_bytes={4 * numbers}").exit_code == 1
    result = check(onnx_file, "--limit", f"external_bytes={4 * numbers - 1}")
    assert result.exit_code == 3
    assert "the limit external_bytes is" in result.stderr


def test_compression_ratio(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(BASE) as source, zipfile.ZipFile(path, "w") as made:
        for info in source.infolist():
            made.writestr(info.filename, source.read(info))
        made.writestr("tabular_mlp/extra/notes", bytes(2**21), zipfile.ZIP_DEFLATED)
    result = check(path)
    assert result.exit_code == 3
    assert "the limit ratio is 100" in result.stderr
    assert check(path, "--limit", "ratio=1100").exit_code == 1


def test_limits_of_the_configuration(
    onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("leakaudit.toml").write_text("[limits]\nnodes = 5\n")
    result = CliRunner().invoke(main, ["check", str(onnx_file), "--no-confirm"])
    assert result.exit_code == 3
    assert "the limit nodes is 5" in result.stderr


def test_time_runs_out(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**9, 200))
    monkeypatch.setattr("leakaudit.sandbox.limits.time.monotonic", lambda: float(next(clock)))
    result = check(onnx_file)
    assert result.exit_code == 3
    assert "reading it takes more than 300 seconds" in result.stderr
    assert "--limit seconds=600" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
def test_memory_runs_out_and_is_given_back() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    with (
        pytest.raises(AuditError, match="the limit memory_bytes is 209715200"),
        bounded_memory(Limits(memory_bytes=200 * 2**20), "net.onnx"),
    ):
        bytearray(400 * 2**20)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert len(bytearray(400 * 2**20)) == 400 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
def test_audits_in_threads_leave_no_limit_behind(onnx_file: Path) -> None:
    import resource

    from leakaudit.frontends.interface import LoadOptions
    from leakaudit.frontends.registry import load

    before = resource.getrlimit(resource.RLIMIT_AS)
    threads = [
        threading.Thread(target=load, args=(str(onnx_file), LoadOptions())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("nodes=7", 7),
        ("nodes=500k", 500_000),
        ("memory-bytes=4GiB", 4 * 2**30),
        ("file_bytes = 3 mib", 3 * 2**20),
        ("seconds=1", 1),
    ],
)
def test_texts_of_limits(text: str, value: int) -> None:
    name = text.partition("=")[0].strip().replace("-", "_")
    assert getattr(parse_limits([text]), name) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nodes", "NAME=VALUE"),
        ("nodes=", "NAME=VALUE"),
        ("nodes=many", "NAME=VALUE"),
        ("nodes=-1", "NAME=VALUE"),
        ("nodes=1.5", "NAME=VALUE"),
        ("nodes=1e9", "NAME=VALUE"),
        ("nodes=1 parsec", "NAME=VALUE"),
        ("nodes=" + "9" * 50, "NAME=VALUE"),
        ("nodes=0", "at least 1"),
        ("node=5", "did you mean 'nodes'"),
        ("qqq=5", "known: file_bytes, "),
    ],
)
def test_wrong_limits_are_usage_errors(text: str, reason: str, onnx_file: Path) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_limits([text])
    result = check(onnx_file, "--limit", text)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_security_model_states_every_limit_and_its_default() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for field in fields(Limits):
        row = next(line for line in text.splitlines() if line.startswith(f"| `{field.name}` |"))
        stated = parse_limits([f"{field.name}={row.split('|')[2].replace(' ', '')}"])
        assert getattr(stated, field.name) == getattr(Limits(), field.name), field.name
    assert len(LIMITS) == text.count("\n| `")
