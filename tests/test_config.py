"""The configuration: where it is found, what it may say, and what wins over what."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from leakaudit.cli import check, main
from leakaudit.config.config import Config, parse
from leakaudit.config.keys import OPTIONS, OTHERS, TABLES

SAMPLES = Path(__file__).parents[1] / "sample_models"


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def audit(*arguments: str | Path) -> list[dict]:
    result = run("check", *arguments, "--no-confirm", "--format", "json")
    assert result.exit_code in (0, 1), result.stderr
    return json.loads(result.stdout)["models"]


def batch(*arguments: str | Path) -> int:
    """The batch size of the only model audited: what a setting came to."""
    (model,) = audit(*arguments)
    return model["inputs"][0]["shape"][0]


def error(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    return line


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two models, entered. The batch axis of both files is open."""
    (tmp_path / "models").mkdir()
    for name in ("lenet_main", "cnn6_d"):
        shutil.copy(SAMPLES / f"{name}.onnx", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


LENET = "models/lenet_main.onnx"


def write(folder: Path, text: str, name: str = "leakaudit.toml") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


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
    tables = {option for option, *_more in TABLES.values()}
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
