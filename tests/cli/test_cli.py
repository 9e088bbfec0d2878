"""The command line as a user meets it: exit codes, error lines, streams."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from places import SAMPLES

from leakaudit.cli.main import main

LENET = str(SAMPLES / "lenet_main.onnx")


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(main, list(arguments))


def one_line(result: Result) -> str:
    """The single error line, checked to be one."""
    assert "Traceback" not in result.output
    (line,) = result.stderr.strip().splitlines()
    return line


BAD_FILES = {
    "empty.onnx": b"",
    "pointer.onnx": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "noise.onnx": bytes(range(256)) * 4,
    "empty.pt2": b"",
    "noise.pt2": bytes(range(256)) * 4,
    "legacy.pt": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_unreadable_files_are_one_line_and_exit_3(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BAD_FILES[name])
    result = run("check", str(path), "--no-confirm")
    assert result.exit_code == 3
    line = one_line(result)
    assert str(path) in line
    assert ";" in line  # reason; remedy


def test_a_truncated_onnx_file_is_one_line_and_exit_3(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(Path(LENET).read_bytes()[:5000])
    result = run("check", str(path))
    assert result.exit_code == 3
    assert str(path) in one_line(result)


@pytest.mark.parametrize("target", ["absent.onnx", "absent.pt2", "notes.txt", "model.py"])
def test_a_missing_target_exits_3(target: str) -> None:
    result = run("check", target)
    assert result.exit_code == 3
    assert target in one_line(result)


def test_a_folder_without_models_exits_3(tmp_path: Path) -> None:
    assert run("check", str(tmp_path)).exit_code == 3


def test_a_folder_is_searched() -> None:
    result = run("check", str(SAMPLES), "--no-confirm", "--format", "json")
    found = {Path(m["target"]).name for m in json.loads(result.stdout)["models"]}
    assert found == {p.name for p in SAMPLES.iterdir() if p.suffix in (".onnx", ".pt2")}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--format", "nonsense"),
        ("--input-shape", "a,b"),
        ("--input-shape", "1,0,3"),
        ("--select", "LA999"),
        ("--no-confirm", "--save-images", "pictures"),
        ("--output", "/nonexistent/folder/report.txt", "--no-confirm"),
    ],
)
def test_wrong_usage_exits_2(arguments: tuple[str, ...]) -> None:
    result = run("check", LENET, *arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_cuda_without_a_gpu_is_named() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    result = run("check", LENET, "--device", "cuda")
    assert result.exit_code == 2
    assert "--device cpu" in one_line(result)


def test_fail_on_and_exit_zero() -> None:
    assert run("check", LENET, "--no-confirm").exit_code == 1
    assert run("check", LENET, "--no-confirm", "--exit-zero").exit_code == 0
    selected = ("check", LENET, "--no-confirm", "--select", "LA003")
    assert run(*selected, "--fail-on", "high").exit_code == 1
    assert run(*selected, "--fail-on", "critical").exit_code == 0


def test_output_is_written_whole_and_keeps_stdout_clean(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    result = run("check", LENET, "--no-confirm", "--format", "json", "--output", str(path))
    assert result.stdout == ""
    assert json.loads(path.read_text())["schema_version"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_colour_only_where_it_is_wanted() -> None:
    plain = ("check", LENET, "--no-confirm")
    assert "\x1b[" not in run(*plain).stdout
    assert "\x1b[" in run(*plain, "--color", "always").stdout
    assert "\x1b[" in run(*plain, FORCE_COLOR="1").stdout
    assert "\x1b[" not in run(*plain, FORCE_COLOR="1", NO_COLOR="1").stdout


def test_pictures_are_written(tmp_path: Path) -> None:
    result = run("check", LENET, "--save-images", str(tmp_path), "--format", "json")
    (images,) = json.loads(result.stdout)["models"][0]["images"]
    for kind in ("original", "reconstruction", "difference"):
        assert Path(images[kind]).read_bytes().startswith(b"\x89PNG")


def test_a_users_picture_is_the_probe(tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "cat.png"
    Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 40).convert("RGB").save(picture)
    result = run("check", LENET, "--probe", str(picture), "--format", "json")
    findings = json.loads(result.stdout)["models"][0]["findings"]
    (evidence,) = [f["confirmation"] for f in findings if f["rule"] == "LA004"]
    assert evidence["probe"] == "picture cat.png"
    assert evidence["status"] == "confirmed"


def test_without_torch_the_extra_is_named() -> None:
    code = (
        "import importlib.util as u, sys\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda n, p=None: None if n in ('torch', 'onnxruntime') else real(n, p)\n"
        "from leakaudit.cli.main import main\n"
        f"sys.argv = ['leakaudit', 'check', {LENET!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "leakaudit[confirm]" in done.stderr
    assert "--no-confirm" in done.stderr
    assert "Traceback" not in done.stderr


def test_explain_a_rule() -> None:
    text = run("explain", "LA001").stdout
    assert "X <= A + B" in text
    assert "2406.04227" in text
    assert run("explain", "equations-reach-unknowns").stdout == text


def test_explain_an_unknown_rule_suggests_one() -> None:
    result = run("explain", "LA01")
    assert result.exit_code == 2
    assert "did you mean LA0" in result.stderr


def test_explain_a_model_asks_for_a_layer() -> None:
    result = run("explain", LENET)
    assert result.exit_code == 2
    assert "--layer" in one_line(result)


def test_an_internal_error_exits_2_and_not_as_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: object) -> None:
        raise RuntimeError("a name \x1b[31m from a file")

    monkeypatch.setattr("leakaudit.cli.check.audit_all", fails)
    result = run("check", LENET, "--no-confirm")
    assert result.exit_code == 2
    assert "RuntimeError: a name" in result.stderr
    assert "\x1b" not in result.stderr
    assert "internal error" in result.stderr.splitlines()[-1]


def test_explain_a_layer_puts_the_numbers_in() -> None:
    text = run("explain", str(SAMPLES / "cnn6_d.onnx"), "--layer", "conv2").stdout
    for number in ("3468", "2160", "1620", "3188"):
        assert number in text
    assert "F*K**2*N" in text
    assert "filters F (now 20)" in text


def test_explain_prints_the_rank_that_the_equations_have() -> None:
    """The published layer whose bound is its true rank."""
    text = run("explain", str(SAMPLES / "cnn6_d.onnx"), "--layer", "conv2").stdout
    assert "rank (generic) = 3188, of a random instance modulo a prime" in text


def test_explain_an_unknown_layer_lists_the_layers() -> None:
    result = run("explain", LENET, "--layer", "conv9")
    assert result.exit_code == 2
    assert "conv1, conv2, conv3, conv4, fc1" in result.stderr


def test_rules_are_listed() -> None:
    text = run("rules").stdout
    assert "LA001" in text
    assert "LA006" in text


def test_module_entry_point() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "leakaudit", "--version"], capture_output=True, text=True, check=True
    )
    assert "leakaudit" in done.stdout


@pytest.mark.parametrize("module", ["leakaudit.cli.main", "leakaudit.frontends"])
def test_ctrl_c_while_the_program_is_imported_is_one_line(module: str) -> None:
    """The group is imported first, what a command needs when it is called."""
    program = (
        "import os, runpy, signal, sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, *_more):\n"
        f"        if name == '{module}':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "runpy.run_module('leakaudit', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "check", "--help"],
        capture_output=True,
        text=True,
        check=False,
        # Jobs in the background ignore Ctrl-C and pass that on: this one is in the foreground.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == 130
    assert (done.stdout, done.stderr) == ("", "leakaudit: stopped\n")


def test_the_installed_command_starts_as_the_module_does() -> None:
    project = tomllib.loads((SAMPLES.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"] == {"leakaudit": "leakaudit.__main__:main"}


def test_an_unknown_operator_is_one_line_and_exit_3(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Mystery", ["x"], ["y"], domain="com.example")],
        "unknown",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    path = tmp_path / "unknown.onnx"
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), path)
    result = run("check", str(path), "--no-confirm")
    assert result.exit_code == 3
    line = one_line(result)
    assert str(path) in line
    assert "Mystery" in line
