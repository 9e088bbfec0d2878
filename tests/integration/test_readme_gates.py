"""What the README tells people to copy into their repositories fits the hooks, action and job."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(file: str) -> str:
    """The block that starts with the name of the file it is for."""
    (found,) = re.findall(rf"^```yaml\n# {re.escape(file)}\n(.*?)^```$", README, re.M | re.S)
    return found


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_hooks_exist() -> None:
    (repository,) = yaml.safe_load(block(".pre-commit-config.yaml"))["repos"]
    offered = {hook["id"]: hook for hook in read(ROOT / ".pre-commit-hooks.yaml")}
    assert {hook["id"] for hook in repository["hooks"]} == offered.keys()
    for hook in repository["hooks"]:
        if offered[hook["id"]].get("pass_filenames", True):
            assert hook.get("args", ["--"])[-1] == "--"


def test_the_workflow_fits_the_action(tmp_path: Path) -> None:
    text = block(".github/workflows/leakaudit.yml")
    steps = yaml.safe_load(text)["jobs"]["audit"]["steps"]
    (step,) = [step for step in steps if step.get("id") == "leakaudit"]
    action = read(ROOT / "action.yml")
    assert step["with"].keys() <= action["inputs"].keys()
    assert set(re.findall(r"leakaudit\.outputs\.([\w-]+)", text)) <= action["outputs"].keys()
    listed = re.search(r"Inputs: (.*?)\. Outputs: (.*?)\.", README, re.S)
    assert listed is not None
    assert set(re.findall(r"`([\w-]+)`", listed[1])) == action["inputs"].keys()
    assert set(re.findall(r"`([\w-]+)`", listed[2])) == action["outputs"].keys()
    file = tmp_path / "workflow.yml"
    file.write_text(text, encoding="utf-8")
    program = Path(sys.executable).parent / "check-jsonschema"
    command = [program, "--builtin-schema", "vendor.github-workflows", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_job_is_the_one_that_is_included() -> None:
    shown = yaml.safe_load(block(".gitlab-ci.yml"))
    (included,) = shown.pop("include")
    path = ".ci/leakaudit.gitlab-ci.yml"
    assert included["remote"].endswith(f"/{path}")
    job = read(ROOT / path)
    assert shown.keys() == job.keys()
    for name, settings in shown.items():
        assert settings.keys() == {"variables"}
        assert settings["variables"].keys() <= job[name]["variables"].keys()
