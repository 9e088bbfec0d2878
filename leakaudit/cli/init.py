"""`leakaudit init`."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import click

from leakaudit.cli.check import check
from leakaudit.config.find import OWN_FILE
from leakaudit.config.keys import OPTIONS
from leakaudit.errors import UsageError
from leakaudit.report.destination import write_text
from leakaudit.report.escape import plain

_HEAD = """\
# Configuration of leakaudit. Every line that is commented out states the default, or, where it says
# "for example", how a value would look. For every setting the first of these holds: the command
# line, the [[target]] entries that match (the last one first), this file, the default. Relative
# paths start from this file's folder. The same keys may stand in pyproject.toml, under
# [tool.leakaudit], [[tool.leakaudit.target]] and [[tool.leakaudit.ignore]].

# What `leakaudit check` audits when it is called without a TARGET, for example:
# targets = ["models"]
"""
_TABLES = """\
# Severities of rules, for example:
# [severities]
# LA005 = "high"

# What a model file may cost, for example:
# [limits]
# file_bytes = "8GiB"

# Settings for some targets only. `match` is a pattern; without a slash it is matched against the
# file's name, otherwise against the path from this folder. For example:
# [[target]]
# match = "models/vision/*.onnx"
# input-shape = [8, 3, 224, 224]
# frozen = ["backbone.*"]
# loss = "cross-entropy"
# severities = { LA005 = "low" }

# Findings that are accepted. `target` and `layer` are patterns and may be left out; the reason may
# not. For example:
# [[ignore]]
# rule = "LA003"
# target = "old.onnx"
# layer = "head*"
# reason = "retired in March, trained on public data only"
"""
_EXAMPLES: dict[str, object] = {
    "input-shape": "1,3,32,32",
    "probe": "probe.png",
    "save-images": "pictures",
    "batch-size": 8,
    "frozen": ["encoder.*"],
    "select": ["LA001", "LA004"],
    "rules": ["rules"],
    "baseline": "leakaudit-baseline.json",
    "output": "leakaudit.txt",
    "report": ["sarif=leakaudit.sarif"],
}


@click.command()
def init() -> None:
    """Write a commented leakaudit.toml into the current folder.

    It states the defaults and changes nothing until a line is put in force. No file is overwritten.
    """
    path = Path(OWN_FILE)
    if path.exists():
        raise UsageError(f"{path} exists: edit it, or move it away to get a new one")
    write_text(path, template(check))
    click.echo(f"leakaudit: wrote {plain(str(path))}", err=True)


def template(command: click.Command) -> str:
    """The text of a configuration that states the defaults of `leakaudit check`, commented out."""
    parts = [_HEAD]
    options = {name: param for param in command.params for name in param.opts}
    for key in OPTIONS:
        param = options[f"--{key}"]
        text = " ".join((getattr(param, "help", None) or key).split())
        if isinstance(param.type, click.Choice):
            text = f"{text.rstrip('.')}. One of {', '.join(param.type.choices)}."
        default = param.to_info_dict()["default"]
        if key in _EXAMPLES:
            text, default = f"{text.rstrip('.')}. For example:", _EXAMPLES[key]
        comment = textwrap.fill(text, 100, initial_indent="# ", subsequent_indent="# ")
        # A string, number, truth value or list of strings is written the same in JSON and TOML.
        parts.append(f"{comment}\n# {key} = {json.dumps(default, ensure_ascii=False)}\n")
    return "\n".join([*parts, _TABLES])
