"""What wins over what, and what a configuration decides: targets, paths, severities, limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from config_support import LENET, audit, batch, error, run, write

from leakaudit.config.config import parse

# --- what wins -----------------------------------------------------------------------------------

TARGET = '[[target]]\nmatch = "lenet*"\nbatch-size = 5\n'


def test_command_line_before_target_before_configuration_before_default(project: Path) -> None:
    assert batch(LENET) == 1
    write(project, "batch-size = 4\n")
    assert batch(LENET) == 4
    write(project, "batch-size = 4\n" + TARGET)
    assert batch(LENET) == 5
    assert batch("models/cnn6_d.onnx") == 4
    assert batch(LENET, "--batch-size", "6") == 6
    # Said is said, even where it is the default.
    assert batch(LENET, "--batch-size", "1") == 1


def test_every_setting_of_a_target_gives_way_to_the_command_line(project: Path) -> None:
    write(
        project,
        '[[target]]\nmatch = "*"\ninput-shape = "2,3,32,32"\nfrozen = ["*"]\nloss = "mse"\n',
    )
    (model,) = audit(LENET)
    assert model["inputs"][0]["shape"] == [2, 3, 32, 32]
    assert {f["rule"] for f in model["findings"]}.isdisjoint({"LA003", "LA004"})
    said = ("--input-shape", "1,3,32,32", "--frozen", "nothing", "--loss", "auto")
    assert audit(LENET, *said) == audit(LENET, "--isolated", "--frozen", "nothing")


def test_a_list_on_the_command_line_replaces_the_list(project: Path) -> None:
    write(project, 'select = ["LA001"]\n')
    assert {f["rule"] for f in audit(LENET)[0]["findings"]} == {"LA001"}
    assert {f["rule"] for f in audit(LENET, "--select", "LA003")[0]["findings"]} == {"LA003"}


def test_the_last_target_entry_that_matches_wins_setting_by_setting(project: Path) -> None:
    text = '[[target]]\nmatch = "*.onnx"\nbatch-size = 2\nfrozen = ["fc1.*"]\n'
    write(project, text + TARGET)
    (model,) = audit(LENET)
    assert model["inputs"][0]["shape"][0] == 5
    assert "LA003" not in {f["rule"] for f in model["findings"]}


@pytest.mark.parametrize(
    "glob", ["*.onnx", "lenet_main.onnx", "models/*", "./models/lenet*", "*/*"]
)
def test_targets_match_by_name_or_by_path(
    project: Path, glob: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, f'[[target]]\nmatch = "{glob}"\nbatch-size = 5\n')
    assert batch(LENET) == 5
    assert batch(project / "models" / ".." / LENET) == 5
    monkeypatch.chdir(project / "models")
    assert batch("lenet_main.onnx") == 5


@pytest.mark.parametrize("glob", ["models", "*/other/*", "*.pt2", "LENET*"])
def test_targets_that_do_not_match(project: Path, glob: str) -> None:
    write(project, f'[[target]]\nmatch = "{glob}"\nbatch-size = 5\n')
    assert batch(LENET) == 1


# --- targets, paths, severities ------------------------------------------------------------------


def test_settings_for_no_target_are_reported(project: Path) -> None:
    entry = "[[target]]\nmatch = '{}'\nbatch-size = 2\n"
    matches = [LENET, "cnn6_d.onnx", "absent*.onnx", "old/*.onnx"]
    path = write(project, "targets = ['models']\n" + "".join(map(entry.format, matches)))
    result = run("check", "--no-confirm")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"leakaudit: warning: {path}: target {number}: no target matches {match!r}; mend the "
        "pattern, or take the entry out"
        for number, match in enumerate(matches, start=1)
        if number > 2
    ]
    # A hook passes the files of a commit: that some entries are for others says nothing.
    assert run("check", LENET, "--no-confirm").stderr == ""


def test_targets_of_the_configuration(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, 'targets = ["models"]\n')
    assert [m["target"] for m in audit()] == ["models/cnn6_d.onnx", "models/lenet_main.onnx"]
    assert [m["target"] for m in audit(LENET)] == [LENET]
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    assert [Path(m["target"]).name for m in audit()] == ["cnn6_d.onnx", "lenet_main.onnx"]


def test_an_importable_target_is_no_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project / "src", "def build(): ...\n", "net.py")
    data = {"targets": ["package.module:build", "src/net.py:build", "models"]}
    config = parse(data, project / "leakaudit.toml")
    assert config.targets == ("package.module:build", "src/net.py:build", "models")
    monkeypatch.chdir(project / "src")
    config = parse(data, project / "leakaudit.toml")
    assert config.targets == ("package.module:build", "net.py:build", "../models")


def test_no_target_at_all_is_wrong_usage(project: Path) -> None:
    assert "`targets`" in error("check")


def test_paths_start_from_the_configuration(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, 'output = "report.json"\nformat = "json"\nreport = "sarif=ci.sarif"\n')
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    assert run("check", project / LENET, "--no-confirm").stdout == ""
    assert json.loads((project / "report.json").read_text())["schema_version"] == 1
    assert json.loads((project / "ci.sarif").read_text())["version"] == "2.1.0"


def severities(*arguments: str | Path) -> dict[tuple[str, str | None], str]:
    (model,) = audit(*arguments)
    return {(f["rule"], f["layer"]): f["severity"] for f in model["findings"]}


def test_severities_of_rules(project: Path) -> None:
    assert severities(LENET)["LA003", "fc1"] == "high"
    write(project, 'severities = { LA003 = "low" }\n')
    assert severities(LENET)["LA003", "fc1"] == "low"
    text = '[[target]]\nmatch = "lenet*"\nseverities = { LA003 = "note" }\n'
    write(project, 'severities = { LA003 = "low" }\n' + text)
    assert severities(LENET)["LA003", "fc1"] == "note"


def test_a_severity_of_the_configuration_decides_the_gate(project: Path) -> None:
    only = ("check", LENET, "--no-confirm", "--select", "LA003")
    assert run(*only).exit_code == 1
    write(project, 'severities = { LA003 = "low" }\n')
    assert run(*only).exit_code == 0


def test_what_a_rule_lowered_is_not_raised(project: Path) -> None:
    """LA001 is a note on the second layer of cnn6_d, since its equations are redundant."""
    model = "models/cnn6_d.onnx"
    assert severities(model)["LA001", "conv2"] == "note"
    write(project, 'severities = { LA001 = "critical" }\n')
    given = severities(model)
    assert (given["LA001", "conv1"], given["LA001", "conv2"]) == ("critical", "note")


def test_sarif_tells_github_the_severity_set(project: Path) -> None:
    write(project, 'severities = { LA003 = "critical" }\n')
    result = run("check", LENET, "--no-confirm", "--format", "sarif")
    rules = json.loads(result.stdout)["runs"][0]["tool"]["driver"]["rules"]
    (rule,) = [rule for rule in rules if rule["id"] == "LA003"]
    assert float(rule["properties"]["security-severity"]) > 9


def test_other_commands_take_it_too(project: Path) -> None:
    write(project, "batch-size = 4\nformat = 'sarif'\n" + TARGET)
    text = run("explain", "models/cnn6_d.onnx", "--layer", "conv1").stdout
    assert text != run("explain", "models/cnn6_d.onnx", "--layer", "conv1", "--isolated").stdout
    assert (
        text == run("explain", "models/cnn6_d.onnx", "--layer", "conv1", "--batch-size", "4").stdout
    )
    advised = run("advise", LENET, "--no-confirm", "--layer", "conv1")
    assert advised.exit_code == 1
    expected = ("--no-confirm", "--layer", "conv1", "--isolated", "--batch-size", "5")
    assert advised.stdout == run("advise", LENET, *expected).stdout


def test_limits(project: Path) -> None:
    path = write(project, "[limits]\nfile_bytes = 1000\n")
    result = run("check", LENET, "--no-confirm")
    assert result.exit_code == 3
    assert "file_bytes is 1000" in result.stderr
    assert run("check", LENET, "--no-confirm", "--limit", "file_bytes=1GiB").exit_code == 1
    assert run("baseline", LENET, "-o", "known.json").exit_code == 3
    for text in ("limits = 1", "[limits]\nfile_byte = 1", "[limits]\nnodes = 'x'"):
        write(project, text + "\n")
        assert f"{path}: limits: " in error("check", LENET)


def test_help_works_whatever_the_configuration(project: Path) -> None:
    write(project, "nonsense = 1\n")
    assert run("check", "--help").exit_code == 0
