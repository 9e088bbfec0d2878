"""The wheel in an environment of its own: without torch, the static audit works whole.

Needs a package index for the few base dependencies.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from places import ROOT, SAMPLES

from leakaudit.report import REPORTERS
from leakaudit.rules.registry import BUILTIN_IDS

pytestmark = pytest.mark.slow

LENET = str(SAMPLES / "lenet_main.onnx")


def done(*command: str | Path) -> None:
    run = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment's folder of programs, with the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("install")
    wheels = folder / "wheels"
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    local = ("--no-deps", "--no-index", "--no-build-isolation")
    done(*pip, "wheel", ROOT, *local, "--wheel-dir", wheels)
    (wheel,) = wheels.glob("leakaudit-*.whl")
    done(sys.executable, "-m", "venv", folder / "venv")
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    done(
        *(programs / "python", *pip[1:], "install", wheel),
        *("--constraint", ROOT / "constraints.txt"),
    )
    return programs


def leakaudit(environment: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed program away from the checkout, which must not be needed."""
    return subprocess.run(
        [environment / "leakaudit", *arguments],
        cwd=environment,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("package", ["torch", "onnxruntime", "PIL", "distributed", "pytest"])
def test_it_is_light(environment: Path, package: str) -> None:
    """What the tests below show, they show without these."""
    program = [environment / "python", "-c", f"import leakaudit.cli.main, {package}"]
    run = subprocess.run(program, cwd=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert f"No module named '{package}'" in run.stderr


def test_the_static_audit_works(environment: Path) -> None:
    run = leakaudit(environment, "check", LENET, "--no-confirm")
    assert (run.returncode, run.stderr) == (1, "")
    assert "LA004  The model's input can be computed from the shared gradient" in run.stdout


def test_the_confirmation_names_its_extra(environment: Path) -> None:
    run = leakaudit(environment, "check", LENET)
    assert (run.returncode, run.stdout) == (2, "")
    (line,) = run.stderr.splitlines()
    assert "pip install 'leakaudit[confirm]'" in line
    assert "--no-confirm" in line


def test_the_cluster_names_its_extra(environment: Path) -> None:
    arguments = ("check", LENET, "--no-confirm", "--cluster", "tcp://localhost:8786")
    run = leakaudit(environment, *arguments)
    assert run.returncode == 2
    assert "pip install 'leakaudit[cluster]'" in run.stderr


def test_a_live_module_names_its_extra(environment: Path) -> None:
    target = f"{SAMPLES / 'networks.py'}:lenet"
    run = leakaudit(environment, "check", target, "--no-confirm", "--format", "json")
    assert run.returncode == 3
    assert "pip install 'leakaudit[confirm]'" in json.loads(run.stdout)["models"][0]["error"]


def test_the_rules_are_there(environment: Path) -> None:
    run = leakaudit(environment, "rules")
    listed = [line.split()[0] for line in run.stdout.splitlines() if line.startswith("LA")]
    assert listed == list(BUILTIN_IDS)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_exported_programs_are_audited(environment: Path, jobs: str) -> None:
    targets = [str(SAMPLES / name) for name in ("vit.pt2", "resnet_leaky.pt2", "lenet_main.onnx")]
    arguments = ("check", *targets, "--no-confirm", "--format", "json", "--jobs", jobs)
    run = leakaudit(environment, *arguments)
    assert (run.returncode, run.stderr) == (1, "")
    models = json.loads(run.stdout)["models"]
    assert [model["target"] for model in models] == targets
    assert all(model["leak_path"]["reaches_input"] for model in models)


@pytest.mark.parametrize("name", sorted(REPORTERS))
def test_every_format_works(environment: Path, name: str) -> None:
    run = leakaudit(environment, "check", LENET, "--no-confirm", "--format", name)
    assert (run.returncode, run.stderr) == (1, "")
    match name:
        case "json" | "sarif" | "gitlab":
            assert json.loads(run.stdout)
        case "junit":
            assert ET.fromstring(run.stdout).tag == "testsuites"
        case _:
            assert "conv1" in run.stdout


def test_advice_is_given(environment: Path) -> None:
    run = leakaudit(environment, "advise", LENET, "--layer", "conv1")
    assert run.returncode == 1
    assert "filters 12 -> 9" in run.stdout
