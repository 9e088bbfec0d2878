"""Hostile names through the whole tool: every format parsed, nothing of the names survives raw."""

from __future__ import annotations

import json
import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hostile_names import hostile, write_all
from markdown_it import MarkdownIt

from leakaudit.cli.main import main
from leakaudit.report import REPORTERS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_all(tmp_path_factory.mktemp("hostile"))


def check(files: list[Path], *options: str) -> Result:
    arguments = ["check", *map(str, files), "--isolated", "--no-progress", *options]
    return CliRunner().invoke(main, arguments)


def is_raw(character: str) -> bool:
    """Characters that steer a terminal or hide: none of them has a place in a report."""
    return character != "\n" and unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def strings(value: Any) -> list[str]:
    """Every string in a JSON document, keys too."""
    if isinstance(value, dict):
        return [s for k, v in value.items() for s in (k, *strings(v))]
    if isinstance(value, list):
        return [s for entry in value for s in strings(entry)]
    return [value] if isinstance(value, str) else []


def table(text: str) -> None:
    assert not re.search(r"^\s*::", text, re.MULTILINE)


def json_document(text: str) -> None:
    models = json.loads(text)["models"]
    names = {layer["name"] for model in models for layer in model["layers"]}
    # JSON is for programs: they get the names as they are.
    assert hostile("fc") in names


def other_json(text: str) -> None:
    texts = strings(json.loads(text))
    assert any("conv1" in entry for entry in texts)
    assert not any(is_raw(character) for entry in texts for character in entry)
    assert not any(re.search(r"^\s*::", entry, re.MULTILINE) for entry in texts)


def junit(text: str) -> None:
    root = ET.fromstring(text)
    tags = {element.tag for element in root.iter()}
    assert tags <= {
        *("testsuites", "testsuite", "testcase", "failure", "error", "skipped"),
        *("system-out", "system-err", "properties", "property"),
    }
    assert any("conv1" in (case.get("name") or "") for case in root.iter("testcase"))


def github(text: str) -> None:
    commands = [line for line in text.splitlines() if line.startswith("::")]
    assert commands
    for line in commands:
        assert re.match(r"::(error|warning|notice) (file|title)=[^:]*::", line), line
        assert not line.startswith("::error::")
    assert not re.search(r"##(vso)?\[", text)


def markdown(text: str) -> None:
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    inner = [*tokens, *(child for token in tokens for child in token.children or ())]
    page = Page()
    for token in inner:
        if token.type in ("html_block", "html_inline"):
            page.feed(token.content)
        for target in (token.attrGet("href"), token.attrGet("src")):
            assert "evil" not in str(target)
    assert page.tags <= {"details", "summary", "code", "b", "span"}
    assert page.attributes == []
    assert any("conv1" in token.content for token in inner)


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def html(text: str) -> None:
    page = Page()
    page.feed(text)
    assert "script" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert not any("evil" in v for name, v in page.attributes if name in ("href", "src"))
    assert "<script>" in page.text  # shown as text


PARSERS: dict[str, Callable[[str], None]] = {
    "table": table,
    "json": json_document,
    "sarif": other_json,
    "gitlab": other_json,
    "junit": junit,
    "github": github,
    "markdown": markdown,
    "html": html,
}


def test_every_format_has_its_parser_here() -> None:
    assert PARSERS.keys() == set(REPORTERS)


@pytest.mark.parametrize("file_format", PARSERS)
def test_nothing_of_a_hostile_name_survives_raw(file_format: str, files: list[Path]) -> None:
    result = check(files, "--no-confirm", "--format", file_format, "-v", "-v")
    assert result.exit_code == 3  # one of the files has an operator that nobody knows
    assert not any(map(is_raw, result.stdout)), file_format
    PARSERS[file_format](result.stdout)
    (line,) = result.stderr.splitlines()
    assert not any(map(is_raw, line))
    assert line.startswith("leakaudit: ")


def test_colour_is_ours_alone(files: list[Path]) -> None:
    result = check(files, "--no-confirm", "--color", "always")
    sequences = set(re.findall(r"\x1b[^m]*m?", result.stdout))
    assert sequences
    assert all(re.fullmatch(r"\x1b\[[0-9;]*m", sequence) for sequence in sequences)
    without = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)
    assert without == check(files, "--no-confirm", "--color", "never").stdout


@pytest.mark.parametrize("command", [["explain", "--layer", hostile("conv1")], ["advise"]])
def test_other_commands_escape_too(command: list[str], files: list[Path]) -> None:
    arguments = [command[0], str(files[0]), *command[1:], "--isolated"]
    arguments += ["--no-confirm"] * (command[0] == "advise")
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in (0, 1)
    assert "conv1" in result.stdout
    assert not any(map(is_raw, result.stdout + result.stderr))
    assert not re.search(r"^\s*::", result.stdout, re.MULTILINE)


def test_pictures_are_written_in_their_folder_alone(files: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    out = tmp_path / "a" / "b" / "pictures"
    beside = {path.name for path in files[0].parent.iterdir()}
    result = check(files[:1], "--save-images", str(out), "--format", "json")
    (model,) = json.loads(result.stdout)["models"]
    assert model["error"] is None
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert all(path.parent == out and path.suffix == ".png" for path in written)
    assert {path.name for path in files[0].parent.iterdir()} == beside
    assert not any(is_raw(character) for path in written for character in path.name)
