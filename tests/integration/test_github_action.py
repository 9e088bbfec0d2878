"""The GitHub Action: its scripts are run as a runner would, and linted by the tools there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from ci_support import (
    LEAKY,
    LFS_POINTER,
    ROOT,
    Ran,
    install_stub,
    install_this_checkout,
    run_script,
    save_safe_model,
    workflow_commands,
)
from source_tree import copy_source, require_package_index

ACTION_FILE = ROOT / "action.yml"
ACTION = yaml.safe_load(ACTION_FILE.read_text(encoding="utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
EXPRESSION = re.compile(r"\$\{\{ *([\w.-]+) *\}\}")


@dataclass(frozen=True, slots=True)
class Runner:
    """A runner's folders, and how it runs one step of the action."""

    workspace: Path
    temp: Path

    @property
    def bin(self) -> Path:
        return self.temp / "leakaudit" / "bin"

    @property
    def summary(self) -> str:
        path = self.temp / "summary"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    @property
    def outputs(self) -> dict[str, str]:
        path = self.temp / "output"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return dict(line.split("=", 1) for line in lines)

    def step(self, name: str, **inputs: str) -> Ran:
        """Run a step; underscores in the names of inputs stand for dashes."""
        given = {key.replace("_", "-"): value for key, value in inputs.items()}
        assert given.keys() <= ACTION["inputs"].keys()
        values = {f"inputs.{key}": value["default"] for key, value in ACTION["inputs"].items()}
        values |= {f"inputs.{key}": value for key, value in given.items()}
        values |= {f"steps.audit.outputs.{key}": value for key, value in self.outputs.items()}
        step = STEPS[name]
        variables = {
            key: EXPRESSION.sub(lambda found: values.get(found[1], ""), text)
            for key, text in step["env"].items()
        }
        variables |= {
            "GITHUB_ACTION_PATH": str(self.temp / "action"),
            "GITHUB_OUTPUT": str(self.temp / "output"),
            "GITHUB_STEP_SUMMARY": str(self.temp / "summary"),
            "GITHUB_WORKSPACE": str(self.workspace),
            "RUNNER_TEMP": str(self.temp),
        }
        assert step["shell"] == "bash"
        return run_script(step["run"], self.workspace, variables)

    def gate(self, **inputs: str) -> tuple[int, Ran]:
        """Audit and judge: the action's exit status, and the log of the audit."""
        audited = self.step("Audit", **inputs)
        if audited.code:
            return audited.code, audited
        return self.step("Judge").code, audited


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    made = Runner(tmp_path / "workspace", tmp_path / "runner temp")
    made.workspace.mkdir()
    made.temp.mkdir()
    return made


@pytest.fixture
def installed(runner: Runner) -> Runner:
    install_this_checkout(runner.bin)
    return runner


def sarif_of(runner: Runner) -> dict:
    return json.loads((runner.workspace / runner.outputs["sarif-file"]).read_text("utf-8"))


def test_a_leaky_model_fails_the_action(installed: Runner) -> None:
    shutil.copy(LEAKY, installed.workspace / "model.onnx")
    code, audited = installed.gate(targets="model.onnx\n")
    assert code == 1
    assert installed.outputs == {"exit-code": "1", "sarif-file": "leakaudit.sarif"}
    results = sarif_of(installed)["runs"][0]["results"]
    assert any("conv1" in result["message"]["text"] for result in results)
    assert "conv1" in installed.summary
    assert installed.summary.startswith("#")
    commands = workflow_commands(audited.stdout)
    assert sum(name == "error" for name, _ in commands) == sum(
        result["level"] == "error" for result in results
    )
    assert all("file=model.onnx" in rest for name, rest in commands if name == "error")


def test_a_safe_model_passes(installed: Runner) -> None:
    save_safe_model(installed.workspace / "model.onnx")
    code, audited = installed.gate(targets="model.onnx")
    assert code == 0
    assert installed.outputs["exit-code"] == "0"
    levels = {result["level"] for result in sarif_of(installed)["runs"][0]["results"]}
    assert levels <= {"note"}
    assert {name for name, _ in workflow_commands(audited.stdout)} == {"notice"}


def test_the_targets_may_come_from_the_configuration(installed: Runner) -> None:
    shutil.copy(LEAKY, installed.workspace / "model.onnx")
    config = 'targets = ["model.onnx"]\nfail-on = "critical"\nselect = ["LA003"]\n'
    (installed.workspace / "leakaudit.toml").write_text(config)
    code, _ = installed.gate()
    assert code == 0
    assert {result["ruleId"] for result in sarif_of(installed)["runs"][0]["results"]} == {"LA003"}
    code, _ = installed.gate(fail_on="high")
    assert code == 1


def test_findings_of_the_baseline_do_not_fail(installed: Runner) -> None:
    shutil.copy(LEAKY, installed.workspace / "old.onnx")
    command = [
        sys.executable,
        "-m",
        "leakaudit",
        "baseline",
        "old.onnx",
        "-o",
        "known findings.json",
    ]
    subprocess.run(command, cwd=installed.workspace, check=True, capture_output=True)
    code, _ = installed.gate(targets="old.onnx", baseline="known findings.json")
    assert code == 0
    shutil.copy(LEAKY, installed.workspace / "new.onnx")
    code, _ = installed.gate(targets="old.onnx\nnew.onnx", baseline="known findings.json")
    assert code == 1


def test_nothing_to_audit_is_an_error(installed: Runner) -> None:
    code, audited = installed.gate(targets=" \n"[1:])
    assert code == 2
    assert "nothing to audit" in audited.stdout


def test_a_pointer_fails_with_its_reason(installed: Runner) -> None:
    (installed.workspace / "model.onnx").write_text(LFS_POINTER)
    code, audited = installed.gate(targets="model.onnx")
    assert code == 3
    assert installed.outputs["exit-code"] == "3"
    errors = [rest for name, rest in workflow_commands(audited.stdout) if name == "error"]
    assert len(errors) == 1
    assert "Git LFS pointer" in errors[0]
    assert "Git LFS pointer" in installed.summary


def test_fail_on_and_further_arguments_are_passed(installed: Runner) -> None:
    shutil.copy(LEAKY, installed.workspace / "my model.onnx")
    arguments = "--select\r\n\r\nLA003\n"
    code, _ = installed.gate(targets="my model.onnx", fail_on="critical", args=arguments)
    assert code == 0
    rules = {result["ruleId"] for result in sarif_of(installed)["runs"][0]["results"]}
    assert rules == {"LA003"}


NAMES = [
    "a b.onnx",
    "; touch pwned;.onnx",
    "$(touch pwned).onnx",
    "`touch pwned`.onnx",
    "' \".onnx",
    "*.onnx",
    "-opwned.onnx",
    "%0A::error::.onnx",
    "$LEAKAUDIT_ARGS\\n.onnx",
]


def test_a_target_is_a_name_whatever_it_holds(installed: Runner) -> None:
    for name in NAMES:
        save_safe_model(installed.workspace / name)
    shutil.copy(LEAKY, installed.workspace / "--exit-zero.onnx")
    targets = "\n".join([*NAMES, "--exit-zero.onnx"])
    code, audited = installed.gate(targets=targets)
    assert code == 1, audited.stdout
    assert f"{len(NAMES) + 1} models, " in audited.stdout
    assert "not audited" not in audited.stdout
    assert "conv4" in installed.summary
    files = {path.name for path in installed.workspace.iterdir()}
    assert files == {*NAMES, "--exit-zero.onnx", "leakaudit.sarif"}


@pytest.mark.parametrize("name", ["fail_on", "baseline", "config", "args", "sarif_file"])
@pytest.mark.parametrize("value", ["$(touch pwned)", "'; touch pwned; '", "`touch pwned`"])
def test_no_input_is_run(installed: Runner, name: str, value: str) -> None:
    save_safe_model(installed.workspace / "model.onnx")
    installed.gate(targets="model.onnx", **{name: value})
    assert not (installed.workspace / "pwned").exists()
    # An argument that is no option is a target that is not there.
    code = {"sarif_file": "0", "args": "3"}.get(name, "2")
    assert installed.outputs["exit-code"] == code


def test_a_wrong_argument_leaves_no_report(installed: Runner) -> None:
    (installed.workspace / "leakaudit.sarif").write_text("old")
    code, _ = installed.gate(targets="model.onnx", args="--no-such-option")
    assert code == 2
    assert installed.outputs == {"exit-code": "2"}
    assert installed.summary == ""


@pytest.mark.parametrize("name", ["", "x\nexit-code=0"])
def test_the_report_has_one_name(installed: Runner, name: str) -> None:
    shutil.copy(LEAKY, installed.workspace / "model.onnx")
    code, _ = installed.gate(targets="model.onnx", sarif_file=name)
    assert code == 2
    assert installed.outputs == {"exit-code": "2"}


def test_a_link_in_the_checkout_is_not_followed(installed: Runner) -> None:
    save_safe_model(installed.workspace / "model.onnx")
    outside = installed.temp / "precious"
    outside.write_text("as it was")
    (installed.workspace / "leakaudit.sarif").symlink_to(outside)
    code, _ = installed.gate(targets="model.onnx")
    assert code == 0
    assert outside.read_text() == "as it was"
    assert sarif_of(installed)["version"] == "2.1.0"


def test_a_module_of_the_checkout_stands_in_for_none(installed: Runner) -> None:
    for name in ("secrets.py", "click.py", "leakaudit.py", "sitecustomize.py"):
        (installed.workspace / name).write_text("open('pwned', 'w')")
    save_safe_model(installed.workspace / "model.onnx")
    code, audited = installed.gate(targets="model.onnx")
    assert code == 0, audited.stdout
    assert not (installed.workspace / "pwned").exists()


def test_the_log_of_the_audit_commands_nothing(runner: Runner) -> None:
    install_this_checkout(runner.bin)
    hostile = (
        "echo '::error::one'; echo '##[error]two' >&2; echo '  ::stop-commands::three'; exit 1"
    )
    install_stub(runner.bin, "leakaudit", hostile)
    code, audited = runner.gate(targets="model.onnx")
    assert code == 1
    assert "one" in audited.stdout
    assert workflow_commands(audited.stdout) == []
    assert workflow_commands(audited.stderr) == []


def test_annotations_can_be_left_out(installed: Runner) -> None:
    shutil.copy(LEAKY, installed.workspace / "model.onnx")
    code, audited = installed.gate(targets="model.onnx", annotations="false")
    assert code == 1
    assert workflow_commands(audited.stdout) == []


def test_a_report_too_long_for_a_summary_is_named(runner: Runner) -> None:
    install_this_checkout(runner.bin)
    long = (
        'for a; do case $a in --report=markdown=*) printf "%01100000d" 0 > "${a##*=}";; esac; done'
    )
    install_stub(runner.bin, "leakaudit", long)
    code, _ = runner.gate(targets="model.onnx")
    assert code == 0
    assert "too long" in runner.summary
    assert len(runner.summary) < 1000


def test_what_is_installed(runner: Runner) -> None:
    """With a Python that only notes what it is asked to do."""
    note = 'echo "$@" >> "$RUNNER_TEMP/asked"'
    install_stub(runner.temp, "python", note)
    install_stub(runner.bin, "python", note)
    python = str(runner.temp / "python")
    action = runner.temp / "action"
    for inputs, package in [
        ({}, f"{action}"),
        ({"confirm": "true"}, f"{action}[confirm]"),
        ({"package": "a b; touch pwned"}, "a b; touch pwned"),
    ]:
        assert runner.step("Install leakaudit", python=python, **inputs).code == 0
        asked = (runner.temp / "asked").read_text().splitlines()
        assert asked[-1].startswith("-I -m pip install")
        assert asked[-1].endswith(f" -- {package}")
    assert not (runner.workspace / "pwned").exists()


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"python": "no-such-python"}, "Python 3.11"),
        ({"python": "false"}, "Python 3.11"),
        ({"confirm": "yes"}, '"confirm"'),
    ],
)
def test_an_installation_that_cannot_work_says_why(
    runner: Runner, inputs: dict[str, str], reason: str
) -> None:
    ran = runner.step("Install leakaudit", **inputs)
    assert ran.code == 2
    (command,) = workflow_commands(ran.stdout)
    assert command[0] == "error"
    assert reason in command[1]


@pytest.mark.slow
def test_the_whole_action(runner: Runner) -> None:
    """Installs the base package with pip, from a package index."""
    require_package_index(runner.temp / "index")
    copy_source(runner.temp / "action")
    (runner.workspace / "venv.py").write_text("open('pwned', 'w')")
    shutil.copy(LEAKY, runner.workspace / "model.onnx")
    ran = runner.step("Install leakaudit", python=sys.executable)
    assert ran.code == 0, ran.stderr
    assert not (runner.workspace / "pwned").exists()
    code, audited = runner.gate(targets="model.onnx")
    assert code == 1, audited.stdout
    assert runner.outputs["exit-code"] == "1"


def test_no_script_has_an_expression() -> None:
    assert STEPS.keys() == {"Install leakaudit", "Audit", "Judge"}
    for step in STEPS.values():
        assert "${{" not in step["run"]


@pytest.mark.parametrize(
    "command",
    [
        ["zizmor", "--offline", "--no-progress", "--pedantic"],
        ["check-jsonschema", "--builtin-schema", "vendor.github-actions"],
    ],
    ids=["zizmor", "schema"],
)
def test_the_action_passes_its_linters(command: list[str]) -> None:
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [program, *command[1:], ACTION_FILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", STEPS)
def test_shellcheck_has_nothing_to_say(name: str) -> None:
    program = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run(
        # SC2153 takes two variables of similar names for one; the step's environment sets both.
        [program, "--shell=bash", "--exclude=SC2153", "-"],
        input=STEPS[name]["run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
