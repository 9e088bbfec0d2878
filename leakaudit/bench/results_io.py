"""Result files: one JSON object per run, written anew after every finished row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from leakaudit.report.destination import write_text

SCHEMA_VERSION = 1


class ResultFile:
    """The rows of one run on disk: what is finished stays when the run is stopped.

    Args:
        path: Where; None keeps the rows in memory only.
        benchmark: `table`, `scale`, `audit` or `solve`.
        environment: Machine, versions, date.
        settings: The run's options.
    """

    def __init__(
        self,
        path: Path | None,
        benchmark: str,
        environment: Mapping[str, Any],
        settings: Mapping[str, Any],
    ) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._head = {
            "schema_version": SCHEMA_VERSION,
            "benchmark": benchmark,
            "environment": dict(environment),
            "settings": dict(settings),
        }
        self._write(complete=False, summary=None)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a finished row."""
        self.rows.append(row)
        self._write(complete=False, summary=None)

    def finish(self, summary: Any = None) -> None:
        """Mark the run as complete."""
        self._write(complete=True, summary=summary)

    def _write(self, *, complete: bool, summary: Any) -> None:
        if self.path is None:
            return
        content = {**self._head, "complete": complete, "rows": self.rows, "summary": summary}
        text = json.dumps(finite(content), indent=1, allow_nan=False, ensure_ascii=False)
        write_text(self.path, text + "\n")


def finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: both become null; floats keep four significant digits."""
    match value:
        case float():
            return float(f"{value:.4g}") if math.isfinite(value) else None
        case Mapping():
            return {str(key): finite(entry) for key, entry in value.items()}
        case list() | tuple():
            return [finite(entry) for entry in value]
        case _:
            return value


def as_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[tuple[str, str]]) -> str:
    """Rows as text, a dash for None and nothing for what a row does not have.

    Args:
        rows: Of a result file; `peak_mib` stands for its bytes.
        columns: Headings, and formats of the values by their keys.
    """
    lines = []
    for row in rows:
        known = dict(row)
        if "peak_bytes" in row:
            peak = row["peak_bytes"]
            known["peak_mib"] = None if peak is None else peak / 2**20
        lines.append([_cell(form, known) for _, form in columns])
    return str(tabulate(lines, [heading for heading, _ in columns], disable_numparse=True))


def _cell(form: str, row: Mapping[str, Any]) -> str:
    try:
        return form.format_map(row)
    except KeyError:
        return ""
    except TypeError:  # None has no digits
        return "-"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The finished rows of a result file; none where it was not written yet."""
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return rows
