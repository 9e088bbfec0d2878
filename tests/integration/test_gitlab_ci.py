"""The job for GitLab CI: its scripts are run in order, and its artifacts read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from ci_support import (
    BASH,
    LEAKY,
    LFS_POINTER,
    ROOT,
    Ran,
    install_stub,
    install_this_checkout,
    run_script,
    save_safe_model,
)
from source_tree import copy_source, require_package_index

JOB_FILE = ROOT / ".ci" / "leakaudit.gitlab-ci.yml"
JOB = yaml.safe_load(JOB_FILE.read_text(encoding="utf-8"))["leakaudit"]
REPORTS = JOB["artifacts"]["reports"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def run_job(
    project: Path, *, install: bool = False, shell: Sequence[str] = BASH, **variables: str
) -> Ran:
    """Run the job as a runner does: `before_script` and `script` in one shell, stopping on errors.

    Unless `install`, this checkout's leakaudit stands for the installed one.
    """
    assert variables.keys() <= JOB["variables"].keys()
    lines = [*JOB["before_script"], *JOB["script"]]
    if not install:
        home = project.parent / "home"
        install_this_checkout(home / "bin")
        lines = [f"leakaudit_home='{home}'", *JOB["script"]]
    tools = project.parent / "tools"
    install_stub(tools, "python", f"exec '{sys.executable}' \"$@\"")
    script = f"PATH='{tools}':$PATH\n" + "\n".join(lines)
    return run_script(script, project, JOB["variables"] | variables, shell)


def quality(project: Path) -> list[dict]:
    return json.loads((project / REPORTS["codequality"]).read_text("utf-8"))


@pytest.mark.parametrize("shell", [BASH, ("sh", "-e")], ids=["bash", "sh"])
def test_a_leaky_model_fails_the_job(project: Path, shell: Sequence[str]) -> None:
    shutil.copy(LEAKY, project / "model.onnx")
    save_safe_model(project / "safe.onnx")
    targets = "model.onnx\nsafe.onnx\n"
    ran = run_job(project, shell=shell, LEAKAUDIT_TARGETS=targets)
    assert ran.code == 1, ran.stderr
    assert "conv1" in ran.stdout
    leaks = [entry for entry in quality(project) if entry["severity"] in ("blocker", "critical")]
    assert leaks
    assert {entry["location"]["path"] for entry in leaks} == {"model.onnx"}
    assert len({entry["fingerprint"] for entry in quality(project)}) == len(quality(project))
    suites = ElementTree.parse(project / REPORTS["junit"]).getroot()
    assert suites.tag == "testsuites"
    assert any("conv1" in case.attrib["name"] for case in suites.iter("testcase"))
    assert list(suites.iter("failure"))


def test_a_safe_model_passes(project: Path) -> None:
    save_safe_model(project / "safe.onnx")
    assert run_job(project, LEAKAUDIT_TARGETS="safe.onnx").code == 0
    assert {entry["severity"] for entry in quality(project)} <= {"info"}
    suites = ElementTree.parse(project / REPORTS["junit"]).getroot()
    assert list(suites.iter("testcase"))
    assert not list(suites.iter("error"))


def test_the_targets_may_come_from_the_configuration(project: Path) -> None:
    shutil.copy(LEAKY, project / "model.onnx")
    (project / "leakaudit.toml").write_text('targets = ["model.onnx"]\nselect = ["LA003"]\n')
    assert run_job(project).code == 1
    assert {entry["check_name"] for entry in quality(project)} == {"LA003"}


def test_a_pointer_fails_with_its_reason(project: Path) -> None:
    (project / "model.onnx").write_text(LFS_POINTER)
    ran = run_job(project, LEAKAUDIT_TARGETS="model.onnx")
    assert ran.code == 3
    assert "Git LFS pointer" in ran.stderr
    (entry,) = quality(project)
    assert "Git LFS pointer" in entry["description"]
    suites = ElementTree.parse(project / REPORTS["junit"]).getroot()
    assert list(suites.iter("error"))


def test_a_variable_is_text_whatever_it_holds(project: Path) -> None:
    names = ["$(touch pwned).onnx", "`touch pwned`.onnx", "a b\\n.onnx", "'; touch pwned #.onnx"]
    for name in names:
        save_safe_model(project / name)
    shutil.copy(LEAKY, project / "--exit-zero.onnx")
    targets = "\n".join([*names, "--exit-zero.onnx"])
    arguments = "--select\nLA003\n\n--frozen=$(touch pwned)"
    ran = run_job(project, LEAKAUDIT_TARGETS=targets, LEAKAUDIT_ARGS=arguments)
    assert ran.code == 1, ran.stderr
    assert "5 models, " in ran.stdout
    assert {entry["check_name"] for entry in quality(project)} == {"LA003"}
    assert {path.name for path in project.iterdir()} == {
        *names,
        "--exit-zero.onnx",
        *REPORTS.values(),
    }


def test_what_to_install_has_to_be_said(project: Path) -> None:
    """The name alone would install whatever an index holds under it."""
    ran = run_job(project, install=True)
    assert ran.code != 0
    assert "LEAKAUDIT_PACKAGE: says what to install" in ran.stderr
    assert list(project.iterdir()) == []


@pytest.mark.slow
def test_the_whole_job(project: Path) -> None:
    """Installs the base package with pip, from a package index."""
    require_package_index(project.parent / "index")
    copy_source(project.parent / "source")
    shutil.copy(LEAKY, project / "model.onnx")
    package = str(project.parent / "source")
    ran = run_job(project, install=True, LEAKAUDIT_PACKAGE=package, LEAKAUDIT_TARGETS="model.onnx")
    assert ran.code == 1, ran.stderr
    assert quality(project)


def test_the_job_passes_gitlabs_schema() -> None:
    program = Path(sys.executable).parent / "check-jsonschema"
    options = ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]
    done = subprocess.run(
        [program, *options, JOB_FILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_shellcheck_has_nothing_to_say() -> None:
    program = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run(
        [program, "--shell=sh", "-"],
        input="\n".join([*JOB["before_script"], *JOB["script"]]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
