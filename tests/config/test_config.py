"""The configuration: where it is found, what it may say, and what `init` writes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pytest
from config_support import LENET, batch, error, run, write

from leakaudit.cli.check import check
from leakaudit.config.config import Config, parse
from leakaudit.config.keys import OPTIONS, OTHERS

# --- where it is found ---------------------------------------------------------------------------


def test_a_table_of_pyproject(project: Path) -> None:
    write(project, "[tool.leakaudit]\nbatch-size = 3\n", "pyproject.toml")
    assert batch(LENET) == 3


def test_the_file_of_its_own_wins_in_one_folder(project: Path) -> None:
    write(project, "[tool.leakaudit]\nbatch-size = 3\n", "pyproject.toml")
    write(project, "batch-size = 4\n")
    assert batch(LENET) == 4


def test_the_nearest_folder_wins(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, "batch-size = 4\n")
    write(project / "deep", "[tool.leakaudit]\nbatch-size = 3\n", "pyproject.toml")
    (project / "deep" / "er").mkdir()
    monkeypatch.chdir(project / "deep" / "er")
    assert batch(project / LENET) == 3


def test_a_pyproject_of_other_tools_is_passed_over(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, "batch-size = 4\n")
    write(project / "deep", "[tool.ruff]\nline-length = 100\n", "pyproject.toml")
    monkeypatch.chdir(project / "deep")
    assert batch(project / LENET) == 4


@pytest.mark.parametrize("kind", ["a folder", "a link to nothing"])
def test_a_file_of_that_name_that_cannot_be_read_is_not_passed_over(
    project: Path, kind: str
) -> None:
    path = write(project, "batch-size = 3\n", "other.toml").with_name("leakaudit.toml")
    path.mkdir() if kind == "a folder" else path.symlink_to("nowhere.toml")
    line = error("check", LENET, "--no-confirm")
    assert f"{path}: cannot be read" in line
    assert "--isolated" in line
    assert batch(LENET, "--isolated") == 1
    assert batch(LENET, "--config", "other.toml") == 3


def test_a_file_named_on_the_command_line(project: Path) -> None:
    write(project, "batch-size = 4\n")
    other = write(project / "ci", "batch-size = 5\n", "gate.toml")
    assert batch(LENET, "--config", other) == 5
    table = write(project / "ci", "[tool.leakaudit]\nbatch-size = 6\n", "pyproject.toml")
    assert batch(LENET, "--config", table) == 6


def test_isolated_uses_none(project: Path) -> None:
    write(project, "batch-size = 4\nunheard-of = 1\n")
    assert batch(LENET, "--isolated") == 1
    line = error("check", LENET, "--isolated", "--config", "leakaudit.toml")
    assert "exclude each other" in line
    other = write(project / "ci", "batch-size = 5\n", "gate.toml")
    assert "exclude each other" in error("check", LENET, "--config", other, "--isolated")


def test_broken_files_are_one_line(project: Path) -> None:
    assert "cannot be read" in error("check", LENET, "--config", "absent.toml")
    other = write(project / "ci", "[tool.ruff]\n", "pyproject.toml")
    assert "[tool.leakaudit]" in error("check", LENET, "--config", other)
    for text in ("batch-size = \n", "batch-size = 1\nbatch-size = 2\n", "x = " + "[" * 100_000):
        path = write(project, text)
        line = error("check", LENET)
        assert f"{path}: not valid TOML" in line
        assert "--isolated" in line
    (project / "leakaudit.toml").write_bytes(b"loss = '\xff'")
    assert "not valid TOML" in error("check", LENET)
    (project / "leakaudit.toml").unlink()
    write(project, "[tool]\nleakaudit = 1\n", "pyproject.toml")
    assert "write [tool.leakaudit]" in error("check", LENET)


# --- what it may say -----------------------------------------------------------------------------


def test_the_keys_are_the_options_of_check() -> None:
    """What the command line alone can say is listed here; anything else has a key."""
    names = {
        name.removeprefix("--")
        for param in check.params
        if isinstance(param, click.Option)
        for name in param.opts
        if name.startswith("--")
    }
    tables = {"limit"}
    # `ignore` is the array of suppressions, which name a reason; --cluster is a matter of trust.
    elsewhere = {"config", "isolated", "ignore", "no-ignores", "cluster"}
    assert set(OPTIONS) | tables >= names - elsewhere
    assert set(OPTIONS) <= names
    assert not set(OPTIONS) & set(OTHERS)


@pytest.mark.parametrize(
    ("text", "key", "suggestion"),
    [
        ("batchsize = 1", "'batchsize'", "did you mean batch-size?"),
        ("batch_size = 1", "'batch_size'", "did you mean batch-size?"),
        ("fail-om = 'high'", "'fail-om'", "did you mean fail-on?"),
        ("severitiess = {}", "'severitiess'", "did you mean severities?"),
        ("zzz = 1", "'zzz'", "known: "),
        ("[[ignores]]", "'ignores'", "did you mean ignore?"),
        ("[[target]]\nmatch = '*'\nbatch_siz = 1", "target 1: unknown key", "batch-size?"),
        ("[[ignore]]\nrule = 'LA001'\nreasons = 'x'", "ignore 1: unknown key", "reason?"),
        ("[limits]\nfile_byte = 1", "limits: unknown key 'file_byte'", "did you mean file_bytes?"),
        ("[limits]\nfile-byte = 1", "limits: unknown key 'file-byte'", "did you mean file_bytes?"),
        ("[limits]\nzzz = 1", "limits: unknown key 'zzz'", "known: axes, "),
        ("[severities]\nLA01 = 'low'", "severities: there is no rule 'LA01'", "did you mean LA01"),
        ("[tool.leakaudit]\nbatch-size = 1", "'tool'", "stand at the top"),
    ],
)
def test_unknown_keys_are_errors_with_a_suggestion(
    project: Path, text: str, key: str, suggestion: str
) -> None:
    path = write(project, text + "\n")
    line = error("check", LENET)
    assert f"{path}: " in line
    assert key in line
    assert suggestion in line


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("batch-size = '8'", "batch-size"),
        ("batch-size = true", "batch-size"),
        ("batch-size = 0", "batch-size"),
        ("seed = -1", "seed"),
        ("confirm = 'yes'", "confirm"),
        ("loss = 1", "loss"),
        ("loss = 'hinge'", "loss"),
        ("format = 'pdf'", "format"),
        ("time-budget = '2 min'", "time-budget"),
        ("time-budget = nan", "time-budget"),
        ("time-budget = -inf", "time-budget"),
        ("frozen = [1]", "frozen"),
        ("frozen = {}", "frozen"),
        ("input-shape = [1, 'x']", "input-shape"),
        ("input-shape = 'a,b'", "input-shape"),
        ("input-shape = [1, 0, 3]", "input-shape"),
        ("probe = 1", "probe"),
        ("targets = 1", "targets"),
        ("severities = 'LA001'", "severities"),
        ("severities = { LA001 = 'awful' }", "severities: LA001"),
        ("severities = { LA001 = 1 }", "severities: LA001"),
        ("severities = { LA999 = 'low' }", "severities"),
        ("limits = { nodes = 0 }", "limits: nodes"),
        ("limits = { nodes = true }", "limits: nodes"),
        ("limits = { seconds = 1.5 }", "limits: seconds"),
        ("limits = { file_bytes = '1 pound' }", "limits: file_bytes"),
        ("jobs = 1.5", "jobs"),
        ("jobs = 'many'", "jobs"),
        ("report = 'nonsense=x'", "report"),
        ("target = { match = '*' }", "target"),
        ("target = ['*']", "target"),
        ("[[target]]\nbatch-size = 1", "target 1: match"),
        ("[[target]]\nmatch = '*'\nbatch-size = 'x'", "target 1: batch-size"),
        ("[[target]]\nmatch = '*'\nbatch-size = -1", "target 1: batch-size"),
        ("[[target]]\nmatch = '*'\nloss = 'hinge'", "target 1: loss"),
        ("[[target]]\nmatch = '*'\n[[target]]\nmatch = ''", "target 2: match"),
        ("[[target]]\nmatch = '*'\nseverities = { LA999 = 'low' }", "target 1: severities"),
    ],
)
def test_wrong_values_name_file_and_key(project: Path, text: str, key: str) -> None:
    path = write(project, text + "\n")
    assert f"{path}: {key}: " in error("check", LENET, "--no-confirm")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[limits]\nfile_bytes = 'x'", "file_bytes: a whole number from 1"),
        ("[severities]\nLA001 = 'awful'", "LA001: one of critical, high, medium, low, note"),
    ],
)
def test_a_wrong_value_in_a_table_is_shown_alone(project: Path, text: str, words: str) -> None:
    write(project, text + "\n")
    line = error("check", LENET)
    assert words in line
    assert "--limit" not in line
    assert "{" not in line


def test_a_limit_may_be_written_with_hyphens(project: Path) -> None:
    write(project, "[limits]\nfile-bytes = '1k'\n")
    assert "file_bytes is 1000" in run("check", LENET, "--no-confirm").stderr


@pytest.mark.parametrize("command", [("check", "--time-budget"), ("advise", "--max-rho")])
def test_what_is_no_number_is_in_no_range(project: Path, command: tuple[str, str]) -> None:
    name, option = command
    result = run(name, LENET, "--no-confirm", option, "nan")
    assert result.exit_code == 2
    assert f"Invalid value for '{option}': nan is not a number" in result.stderr


def test_a_time_budget_may_be_without_end(project: Path) -> None:
    write(project, "time-budget = inf\n")
    assert run("check", LENET, "--no-confirm").exit_code == 1


@pytest.mark.parametrize(
    "shape", ['"2,3,32,32"', '["2,3,32,32"]', '"input=2x3x32x32"', "[2,3,32,32]"]
)
def test_a_shape_may_be_written_in_several_ways(project: Path, shape: str) -> None:
    write(project, f"input-shape = {shape}\n")
    assert batch(LENET) == 2


def test_the_defaults_written_out_change_nothing(project: Path) -> None:
    run("init")
    template = Path("leakaudit.toml").read_text(encoding="utf-8")
    blocks = template[: template.index("# [severities]")].split("\n\n")
    stated = [block.splitlines()[-1].removeprefix("# ") for block in blocks]
    keys = "|".join(OPTIONS)
    defaults = [
        line
        for line, block in zip(stated, blocks, strict=True)
        if re.match(f"({keys}) = ", line) and "For example" not in block
    ]
    assert len(defaults) > 12
    write(project, "\n".join(defaults).replace("confirm = true", "confirm = false") + "\n")
    plain = run("check", LENET, "--no-confirm", "--isolated")
    result = run("check", LENET)
    assert (result.exit_code, result.stdout) == (plain.exit_code, plain.stdout)


def test_the_example_for_a_target_works(project: Path) -> None:
    """Its shape and batch size must not contradict each other."""
    run("init")
    lines = Path("leakaudit.toml").read_text(encoding="utf-8").splitlines()
    start = lines.index("# [[target]]")
    example = "\n".join(line.removeprefix("# ") for line in lines[start : lines.index("", start)])
    write(project, example.replace("models/vision/*.onnx", "*").replace("224, 224", "32, 32"))
    assert batch(LENET) == 8


# --- init ----------------------------------------------------------------------------------------


def test_init_writes_the_defaults(project: Path) -> None:
    result = run("init")
    assert (result.exit_code, result.stdout) == (0, "")
    path = project / "leakaudit.toml"
    text = path.read_text(encoding="utf-8")
    assert parse(tomllib.loads(text), path) == Config(file=path)
    assert all(len(line) <= 100 for line in text.splitlines())
    stated = run("check", LENET, "--no-confirm")
    assert stated.stdout == run("check", LENET, "--no-confirm", "--isolated").stdout


def test_what_init_states_is_true(project: Path) -> None:
    """Put in force, every line is valid, and says the default unless it is an example."""
    run("init")
    text = (project / "leakaudit.toml").read_text(encoding="utf-8")
    defaults = {
        name.removeprefix("--"): param.to_info_dict()["default"]
        for param in check.params
        for name in param.opts
    }
    blocks = re.findall(r"((?:^# .*\n)+)", text, re.M)
    stated = set()
    for block in blocks:
        setting = re.search(r"^# ([a-z-]+) = (.*)$", block, re.M)
        if not setting or setting[1] not in OPTIONS:
            continue
        stated.add(setting[1])
        value = tomllib.loads(f"{setting[1]} = {setting[2]}")
        parse(value, project / "leakaudit.toml")
        if "For example" not in block:
            assert value[setting[1]] == defaults[setting[1]]
    assert stated == set(OPTIONS)
    examples = text[text.index("# [severities]") :]
    uncommented = re.sub(r"^# (?=\[|\w+(-\w+)* = )", "", examples, flags=re.M)
    config = parse(tomllib.loads(uncommented), project / "leakaudit.toml")
    assert config.severities
    assert config.per_target[0].frozen == ("backbone.*",)
    assert config.ignores[0].reason
    assert "limit" in config.options


def test_init_overwrites_nothing(project: Path) -> None:
    write(project, "batch-size = 4\n")
    assert "exists" in error("init")
    assert batch(LENET) == 4
