"""pre-commit itself, in a scratch repository that takes the hooks from this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from ci_support import LEAKY, LFS_POINTER, save_safe_model
from made_once import made_once
from places import ROOT
from source_tree import copy_source, require_package_index

UNDERDETERMINED = ROOT / "sample_models" / "lenet_underdetermined.onnx"
PRE_COMMIT = [sys.executable, "-m", "pre_commit"]


@dataclass(frozen=True, slots=True)
class Repository:
    """A user's repository with the hook installed."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return run(self.folder, self.environment, *command)

    def commit(self, *names: str) -> tuple[int, str]:
        """Add these files and commit: the exit status of git and what the hook said."""
        assert self.run("git", "add", "--", *names).returncode == 0
        done = self.run("git", "commit", "--message", "change")
        return done.returncode, done.stdout + done.stderr

    @property
    def commits(self) -> int:
        done = self.run("git", "rev-list", "--count", "--all")
        return int(done.stdout)


def run(
    folder: Path, environment: Mapping[str, str], *command: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def committed(folder: Path, environment: Mapping[str, str]) -> str:
    """Make a repository of what lies in `folder`; return its revision."""
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "all"]):
        done = run(folder, environment, "git", *command)
        assert done.returncode == 0, done.stderr
    return run(folder, environment, "git", "rev-parse", "HEAD").stdout.strip()


def environment_of(folder: Path) -> Mapping[str, str]:
    outer = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return outer | {
        "PRE_COMMIT_HOME": str(folder / "home"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_AUTHOR_NAME": "A. Tester",
        "GIT_AUTHOR_EMAIL": "tester@example.org",
        "GIT_COMMITTER_NAME": "A. Tester",
        "GIT_COMMITTER_EMAIL": "tester@example.org",
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
        "PIP_COMPILE": "0",  # most of what is installed is never imported
    }


# What stands in the user's configuration.
FILES = "- id: leakaudit"
FAIL_ON = "- {id: leakaudit, args: [--fail-on, critical, --]}"
CONFIGURED = "- id: leakaudit-config"
CONFIGURATIONS = [FILES, FAIL_ON, CONFIGURED]


def install(folder: Path) -> None:
    """The repository of the hooks, and for each configuration a user's repository with its hook.

    pre-commit installs the environment that they share, from a package index.
    """
    require_package_index(folder / "index")
    environment = environment_of(folder)
    copy_source(folder / "source")
    revision = committed(folder / "source", environment)
    for number, hook in enumerate(CONFIGURATIONS):
        user = folder / f"user {number}"
        user.mkdir()
        config = f"repos:\n- repo: {folder / 'source'}\n  rev: {revision}\n  hooks:\n  {hook}\n"
        (user / ".pre-commit-config.yaml").write_text(config, encoding="utf-8")
        committed(user, environment)
        done = run(user, environment, *PRE_COMMIT, "install", "--install-hooks")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "pre-commit", install)


@pytest.fixture
def repository(request: pytest.FixtureRequest, installed: Path, tmp_path: Path) -> Repository:
    """A copy of the user's repository; a test names the configuration if it is another."""
    number = CONFIGURATIONS.index(getattr(request, "param", FILES))
    shutil.copytree(installed / f"user {number}", tmp_path, symlinks=True, dirs_exist_ok=True)
    return Repository(tmp_path, environment_of(installed))


def test_a_leaky_model_is_refused_with_the_layer_named(repository: Repository) -> None:
    shutil.copy(LEAKY, repository.folder / "leaky.onnx")
    code, said = repository.commit("leaky.onnx")
    assert code != 0
    assert "leaky.onnx" in said
    assert "conv1" in said
    assert repository.commits == 1


def test_a_leaky_torch_export_is_refused(repository: Repository) -> None:
    shutil.copy(LEAKY.with_suffix(".pt2"), repository.folder / "leaky.pt2")
    code, said = repository.commit("leaky.pt2")
    assert code != 0
    assert "conv1" in said


def test_a_safe_model_is_committed(repository: Repository) -> None:
    save_safe_model(repository.folder / "safe.onnx")
    code, said = repository.commit("safe.onnx")
    assert code == 0, said
    assert "Passed" in said
    assert repository.commits == 2


def test_one_leaky_model_among_many_is_refused(repository: Repository) -> None:
    for index in range(12):
        save_safe_model(repository.folder / f"safe {index}.onnx")
    shutil.copy(LEAKY, repository.folder / "m.onnx")
    code, said = repository.commit(".")
    assert code != 0
    assert "13 models" in said


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2", "MODEL.ONNX"])
def test_a_pointer_fails_with_its_reason(repository: Repository, name: str) -> None:
    """It is text: a hook on binary files would skip it, and the model with it."""
    (repository.folder / name).write_text(LFS_POINTER, encoding="utf-8")
    code, said = repository.commit(name)
    assert code != 0
    assert f"{name}: " in said
    assert "Git LFS pointer" in said
    assert "git lfs pull" in said


def test_a_link_is_audited_or_fails(repository: Repository, tmp_path: Path) -> None:
    """git-annex keeps models behind links, broken ones where the content is elsewhere."""
    outside = tmp_path.parent / f"{tmp_path.name}-annex"
    outside.mkdir()
    (repository.folder / "model.onnx").symlink_to(outside / "content.onnx")
    code, said = repository.commit("model.onnx")
    assert code != 0
    assert "model.onnx: " in said
    save_safe_model(outside / "content.onnx")
    code, said = repository.commit("model.onnx")
    assert code == 0, said


def test_a_name_is_no_option(repository: Repository) -> None:
    shutil.copy(LEAKY, repository.folder / "--exit-zero.onnx")
    save_safe_model(repository.folder / "-oreport.onnx")
    code, said = repository.commit(".")
    assert code != 0
    assert "2 models" in said
    assert not (repository.folder / "report.onnx").exists()


def test_other_files_are_no_business_of_the_hook(repository: Repository) -> None:
    (repository.folder / "notes.txt").write_text("text")
    (repository.folder / "model.onnx.data").write_bytes(bytes(64))
    code, said = repository.commit(".")
    assert code == 0, said
    assert "Skipped" in said


@pytest.mark.parametrize("repository", [FAIL_ON], indirect=True)
def test_arguments_are_the_users(repository: Repository) -> None:
    shutil.copy(UNDERDETERMINED, repository.folder / "partial.onnx")
    code, said = repository.commit("partial.onnx")
    assert code == 0, said
    shutil.copy(LEAKY, repository.folder / "leaky.onnx")
    code, said = repository.commit("leaky.onnx")
    assert code != 0
    assert "LA004" in said


@pytest.mark.parametrize("repository", [CONFIGURED], indirect=True)
def test_the_targets_may_come_from_the_configuration(repository: Repository) -> None:
    config = repository.folder / "pyproject.toml"
    config.write_text('[tool.leakaudit]\ntargets = ["models"]\n', encoding="utf-8")
    models = repository.folder / "models"
    models.mkdir()
    save_safe_model(models / "safe.onnx")
    # Not a target, so no reason to refuse.
    shutil.copy(LEAKY, repository.folder / "elsewhere.onnx")
    code, said = repository.commit(".")
    assert code == 0, said
    shutil.copy(LEAKY, models / "leaky.onnx")
    code, said = repository.commit(".")
    assert code != 0
    assert "models/leaky.onnx" in said
    assert "conv1" in said


@pytest.mark.parametrize("repository", [CONFIGURED], indirect=True)
def test_a_configuration_without_targets_is_refused(repository: Repository) -> None:
    (repository.folder / "notes.txt").write_text("text", encoding="utf-8")
    code, said = repository.commit("notes.txt")
    assert code != 0
    assert "targets" in said


def test_the_environment_is_light(installed: Path) -> None:
    packages = {
        path.name for path in installed.glob("home/repo*/py_env-*/lib/python*/site-packages/*")
    }
    assert {"leakaudit", "onnx", "sympy"} <= packages
    assert not {"torch", "onnxruntime"} & packages
