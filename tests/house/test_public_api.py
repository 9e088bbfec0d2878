"""`import leakaudit`: what it offers, what it costs, and that its examples run."""

from __future__ import annotations

import doctest
import html
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from places import ROOT, SAMPLES

import leakaudit
from leakaudit.cli.main import main
from leakaudit.pipeline import choices

LENET = SAMPLES / "lenet_main.onnx"
# The contract. A name goes from here only with a new major version.
NAMES = [
    "Advice",
    "AuditError",
    "AuditReport",
    "Confirmation",
    "Finding",
    "Graph",
    "LeakPath",
    "LeakauditError",
    "ModelReport",
    "Reconstruction",
    "Report",
    "Severity",
    "Status",
    "UsageError",
    "__version__",
    "advise",
    "audit",
    "find_leak_path",
    "load",
    "reconstruct",
]
PARTS = [name for name in NAMES if name != "__version__"]


def python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_names_are_these() -> None:
    assert sorted(leakaudit.__all__) == NAMES
    assert sorted(dir(leakaudit)) == NAMES


@pytest.mark.parametrize("name", PARTS)
def test_a_name_is_importable_and_says_what_it_is(name: str) -> None:
    part = getattr(leakaudit, name)
    assert part.__name__ == name
    assert inspect.getdoc(part)
    assert getattr(importlib.import_module(part.__module__), name) is part


@pytest.mark.parametrize("name", ["advise", "audit", "find_leak_path", "load", "reconstruct"])
def test_a_function_states_its_arguments_errors_and_an_example(name: str) -> None:
    function = getattr(leakaudit, name)
    text = inspect.getdoc(function) or ""
    listed = " ".join(re.findall(r"^    ([a-z_, ]+): ", text, re.MULTILINE))
    assert set(inspect.signature(function).parameters) == set(re.findall(r"\w+", listed))
    assert "Raises:" in text
    assert ">>>" in text


@pytest.mark.parametrize("name", [*PARTS, "leakaudit"])
def test_examples_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    part = leakaudit if name == "leakaudit" else getattr(leakaudit, name)
    for example in doctest.DocTestFinder(recurse=False).find(part, name, globs={}):
        assert doctest.DocTestRunner().run(example).failed == 0


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = leakaudit.nothing
    with pytest.raises(ImportError):
        exec("from leakaudit import nothing")


def test_the_import_alone_brings_in_nothing() -> None:
    loaded = python("import sys, leakaudit; print(*sys.modules)").split()
    assert {name for name in loaded if name.startswith("leakaudit")} == {"leakaudit"}
    assert not {"torch", "sympy", "onnx", "numpy", "click"} & set(loaded)


def test_no_room_hides_a_name() -> None:
    """`import leakaudit.x` binds x in the package: a room of a function's name would replace it."""
    rooms = {path.stem for path in (ROOT / "leakaudit").iterdir()}
    assert not rooms & set(NAMES)


def test_the_static_audit_of_a_file_imports_no_torch() -> None:
    program = """
import sys, leakaudit
report = leakaudit.audit('sample_models/lenet_main.onnx', confirm=False)
print(report.exit_code(), 'torch' in sys.modules, 'sympy' in sys.modules)
"""
    assert python(program).split() == ["1", "False", "False"]


def test_the_report_is_that_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    target = "sample_models/lenet_main.onnx"
    report = leakaudit.audit(target, confirm=False)
    for file_format in ("json", "sarif", "table", "markdown"):
        done = CliRunner().invoke(
            main, ["check", target, "--no-confirm", "--format", file_format], terminal_width=100
        )
        assert report.render(file_format) == done.stdout
        assert report.exit_code() == done.exit_code
    assert report.to_dict() == json.loads(report.render("json"))
    assert str(report) == report.render()
    assert report.summary.findings[leakaudit.Severity.HIGH] == len(
        [finding for finding in report.findings if finding.severity == "high"]
    )


def test_a_notebook_shows_the_html_report_in_a_frame() -> None:
    report = leakaudit.audit(LENET, confirm=False)
    shown = report._repr_html_()
    (page,) = re.findall(r'^<iframe [^>]*?srcdoc="([^"]*)"[^>]*></iframe>$', shown, re.DOTALL)
    assert html.unescape(page) == report.render("html")
    assert 'sandbox=""' in shown


def test_a_folder_has_a_report_for_every_model(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(LENET.read_bytes())
    (tmp_path / "b.onnx").write_bytes(b"")
    report = leakaudit.audit(tmp_path, confirm=False)
    assert [bool(model.error) for model in report.models] == [False, True]
    assert report.exit_code() == 3


def test_what_cannot_be_audited_is_raised_and_never_passes_for_clean(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    for target in (tmp_path / "empty.onnx", tmp_path / "absent.onnx", "no.module:thing"):
        with pytest.raises(leakaudit.AuditError):
            leakaudit.audit(target, confirm=False)
        with pytest.raises(leakaudit.AuditError):
            leakaudit.load(target)
        with pytest.raises(leakaudit.AuditError):
            leakaudit.advise(target, confirm=False)


@pytest.mark.parametrize(
    "setting",
    [
        {"loss": "crossentropy"},
        {"device": "gpu"},
        {"gradient_dtype": "fp32"},
        {"batch_size": 0},
        {"input_shape": (1, 3, 0, 32)},
        {"frozen": "conv1*"},
        {"limits": {"memory": 1}},
        {"select": ["LA999"]},
        {"inputs": (1, 2)},
        {"probe": "cat.png"},
        {"rules": ["absent"]},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_a_setting_that_is_not_allowed_is_wrong_usage(setting: dict[str, object]) -> None:
    with pytest.raises(leakaudit.UsageError):
        leakaudit.audit(LENET, confirm=False, **setting)


def test_wrong_usage_of_the_others() -> None:
    report = leakaudit.audit(LENET, confirm=False)
    with pytest.raises(leakaudit.UsageError, match="fail_on 'severe'"):
        report.exit_code(fail_on="severe")
    with pytest.raises(leakaudit.UsageError, match="evidence 'proof'"):
        report.exit_code(evidence="proof")
    with pytest.raises(leakaudit.UsageError, match="confirm=True"):
        report.exit_code(evidence="confirmed")
    with pytest.raises(leakaudit.UsageError, match="'yaml'"):
        report.render("yaml")
    with pytest.raises(leakaudit.UsageError, match="--loss"):
        leakaudit.find_leak_path(leakaudit.load(LENET), "l2")
    with pytest.raises(leakaudit.UsageError, match="--max-rho"):
        leakaudit.advise(LENET, max_rho=0, confirm=False)
    with pytest.raises(leakaudit.UsageError, match="inputs are for live modules"):
        leakaudit.audit(SAMPLES, inputs=(1, 2), confirm=False)
    with pytest.raises(leakaudit.UsageError, match="a list cannot be audited"):
        leakaudit.audit([LENET], confirm=False)


def test_settings_reach_the_audit() -> None:
    report = leakaudit.audit(
        LENET,
        confirm=False,
        batch_size=2,
        frozen=["conv1*"],
        select=["LA003"],
        limits={"nodes": 99},
    )
    assert report.models[0].inputs[0].shape == (2, 3, 32, 32)
    assert {finding.rule for finding in report.findings} <= {"LA003"}
    assert "frozen" in report.models[0].layers[0].note


def test_a_model_in_memory_is_audited_like_its_file() -> None:
    model = onnx.load(LENET)
    before = model.SerializeToString()
    report = leakaudit.audit(model, confirm=False)
    (entry,), (file,) = report.models, leakaudit.audit(LENET, confirm=False).models
    assert entry.sha256 is None
    assert (entry.layers, entry.findings, entry.leak_path) == (
        file.layers,
        file.findings,
        file.leak_path,
    )
    assert model.SerializeToString() == before


def test_a_live_module_is_confirmed_and_left_as_it_was() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, stride=2, padding=2),
        torch.nn.Sigmoid(),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 36, 5),
    )
    module.train()
    report = leakaudit.audit(module, inputs=torch.zeros(1, 3, 12, 12))
    (finding,) = (it for it in report.findings if it.rule == "LA004")
    assert finding.confirmation is not None
    assert finding.confirmation.status is leakaudit.Status.CONFIRMED
    assert finding.confirmation.scope == "end to end"
    assert report.exit_code(evidence="confirmed") == 1
    assert report.models[0].target == "Sequential"
    assert module.training


def test_keyword_inputs_of_hugging_face_models() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=4,
    )
    model = transformers.ViTForImageClassification(config)
    report = leakaudit.audit(
        model, inputs={"pixel_values": torch.zeros(1, 3, 16, 16)}, confirm=False
    )
    assert report.models[0].inputs[0].shape == (1, 3, 16, 16)
    assert report.models[0].leak_path.reaches_input


def test_the_choices_are_those_of_the_code_behind_them() -> None:
    from leakaudit.confirm.client import GRADIENT_DTYPES

    assert set(choices.GRADIENT_DTYPES) == set(GRADIENT_DTYPES)
