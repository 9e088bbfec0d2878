"""The keys that a configuration may have. What is not in these tables is an error."""

from __future__ import annotations

from collections.abc import Mapping

from leakaudit.config import values
from leakaudit.config.values import Check

# A key is the long name of an option of `leakaudit check`, with the same meaning. --cluster is not
# among them: what a scheduler answers is unpickled, so the command line alone may name one.
OPTIONS: Mapping[str, Check] = {
    "input-shape": values.shapes,
    "confirm": values.boolean,
    "device": values.text,
    "gradient-dtype": values.text,
    "loss": values.text,
    "probe": values.path,
    "seed": values.integer,
    "save-images": values.path,
    "time-budget": values.number,
    "batch-size": values.integer,
    "frozen": values.texts,
    "select": values.texts,
    "rules": values.paths,
    "severity": values.text,
    "fail-on": values.text,
    "fail-on-evidence": values.text,
    "baseline": values.path,
    "format": values.text,
    "output": values.path,
    "report": values.report_files,
    "exit-zero": values.boolean,
    "jobs": values.text_or_integer,
    "no-progress": values.boolean,
    "color": values.text,
    "quiet": values.integer,
    "verbose": values.integer,
}

# What the command line says by its arguments, or cannot say.
OTHERS: Mapping[str, Check] = {
    "targets": values.targets,
    "severities": values.severities,
}

# Arrays of tables: [[target]] and [[ignore]].
TARGET_KEYS: Mapping[str, Check] = {
    "match": values.text,
    "input-shape": values.shapes,
    "batch-size": values.integer,
    "frozen": values.texts,
    "loss": values.text,
    "severities": values.severities,
}
IGNORE_KEYS: Mapping[str, Check] = {
    "rule": values.text,
    "target": values.text,
    "layer": values.text,
    "reason": values.text,
}
