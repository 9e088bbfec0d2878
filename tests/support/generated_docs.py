"""The generated parts of README.md, and rules/README.md.

    python tests/support/generated_docs.py      # write them (also: make docs)

The tests compare the files with what these functions return.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import click
from places import ROOT
from rules_page import PAGE, rules_page

from leakaudit.bench import audit_time, scale, solve_time, table
from leakaudit.cli.main import imported, main
from leakaudit.frontends.coverage import coverage

README = ROOT / "README.md"
RESULTS = ROOT / "leakaudit" / "bench" / "results"
WIDTH = 100
# Prints `--help` of the commands whose words are given as JSON, NUL between them.
PRINT_HELP = """
import json, sys
from leakaudit.cli.main import main
for number, words in enumerate(json.loads(sys.argv[1])):
    print(end="\\0" if number else "")
    main([*words, "--help"], prog_name="leakaudit", standalone_mode=False)
"""
TRANSCRIPT = "check sample_models/lenet_main.onnx --select LA004 --no-progress"


def printed(*arguments: str) -> str:
    """What the command prints on a terminal of 100 columns, run from the root of the checkout."""
    text = run_python("-m", "leakaudit", *arguments)
    # `python -m` names itself so in the usage line; what people call is the command.
    return text.replace("python -m leakaudit", "leakaudit").rstrip()


def run_python(*arguments: str) -> str:
    """What a fresh interpreter prints on a terminal of 100 columns."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout


def transcript() -> str:
    """An audit with its confirmation; figures differ in their last digits between machines."""
    return f"```console\n$ leakaudit {TRANSCRIPT}\n{printed(*TRANSCRIPT.split())}\n```"


def rules_table() -> str:
    """The rules as `leakaudit rules` lists them."""
    rows = [re.split(r"  +", line.strip()) for line in printed("rules").splitlines()[2:]]
    head = "| rule | severity | title |\n|---|---|---|\n"
    return head + "\n".join(
        f"| {rule} | {severity} | {title} |" for rule, severity, _, title in rows
    )


def coverage_table() -> str:
    """The operators that each format's frontend understands."""
    rows = [
        f"| {line.family} | {', '.join(line.onnx) or '-'} | {', '.join(line.aten) or '-'} |"
        for line in coverage()
    ]
    return "| family | ONNX | ATen |\n|---|---|---|\n" + "\n".join(rows)


def commands() -> dict[tuple[str, ...], click.Command]:
    """Every command and group by its words, outermost first."""
    found: dict[tuple[str, ...], click.Command] = {(): main}
    for name in sorted(main.commands):
        command = found[(name,)] = imported(name)
        for part in sorted(getattr(command, "commands", ())):
            found[name, part] = command.commands[part]
    return found


# In a process of its own: click keeps a command's help option as its first caller shaped it.
HELP = f"""
import json, sys
from click.testing import CliRunner
from leakaudit.cli.main import imported, main

def help_of(words):
    width = {WIDTH - 2}  # what click leaves of a terminal's columns
    arguments = [*words, "--help"]
    return CliRunner().invoke(
        main, arguments, prog_name="leakaudit", terminal_width=width, catch_exceptions=False
    ).stdout

json.dump([help_of(words) for words in json.load(sys.stdin)], sys.stdout)
"""


def help_texts() -> str:
    """`--help` of every command."""
    parts = []
    paths = list(commands())
    done = subprocess.run(
        [sys.executable, "-c", HELP],
        cwd=ROOT,
        input=json.dumps(paths),
        capture_output=True,
        text=True,
        check=True,
    )
    for path, shown in zip(paths, json.loads(done.stdout), strict=True):
        words = " ".join(("leakaudit", *path, "--help"))
        text = f"```console\n$ {words}\n{shown.rstrip()}\n```"
        if path:
            text = f"<details><summary><code>{words}</code></summary>\n\n{text}\n\n</details>"
        parts.append(text)
    return "\n\n".join(parts)


RENDERERS = {
    "table": table.render,
    "solve": solve_time.render,
    "scale": scale.render,
    "audit": audit_time.render,
}
TITLES = {
    "table": "R-CONV, DLG and R-GAP on the same network and picture, in one process",
    "solve": "The solvers against a dense least-squares solve and against training the layer",
    "scale": "One convolution (3 channels, k3 s1 p1, ReLU, float64) by size",
    "audit": "Whole audits of lenet_main against bare imports",
}


def results() -> str:
    """The committed result files of `leakaudit bench`, as the command prints them."""
    parts = []
    files = sorted(RESULTS.glob("*.json"))
    for benchmark in RENDERERS:
        for file in files:
            document = json.loads(file.read_text(encoding="utf-8"))
            if document["benchmark"] != benchmark:
                continue
            machine = document["environment"]
            versions = machine["versions"]
            where = (
                f"{TITLES[benchmark]} ({machine['date']}, {machine['cores']} cores "
                f"{machine['cpu']}, torch {versions['torch']}, leakaudit {versions['leakaudit']}; "
                f"`{file.relative_to(ROOT).as_posix()}`):"
            )
            parts.append(
                f"{where}\n\n```text\n{RENDERERS[benchmark](document['rows']).rstrip()}\n```"
            )
    return "\n\n".join(parts)


TABLE = r"\|.*?\|(?=\n\n)"
# Marker -> what makes the text below it, and what that text looks like in the README.
PARTS = {
    "transcript": (transcript, r"```console\n.*?\n```"),
    "rules": (rules_table, TABLE),
    "coverage": (coverage_table, TABLE),
    "results": (results, r".*?(?=\n\n<!-- /results -->)"),
    "help": (help_texts, r".*?(?=\n\n<!-- /help -->)"),
}


def part_of(readme: str, name: str) -> str:
    """What stands below the part's marker."""
    _, form = PARTS[name]
    (found,) = re.findall(rf"<!-- {name} -->\n\n({form})", readme, flags=re.DOTALL)
    return str(found)


def write() -> None:
    """Bring the files up to date."""
    readme = README.read_text(encoding="utf-8")
    for name, (part, _) in PARTS.items():
        marker = f"<!-- {name} -->\n\n"
        readme = readme.replace(marker + part_of(readme, name), marker + part())
    README.write_text(readme, encoding="utf-8")
    PAGE.write_text(rules_page(), encoding="utf-8")


if __name__ == "__main__":
    write()
