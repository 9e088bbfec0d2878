"""The README's section "Command line" shows the help texts as the tool prints them."""

from __future__ import annotations

import re

from generated_docs import README, WIDTH, commands, help_texts, part_of, results

SHOWN = part_of(README.read_text(encoding="utf-8"), "help")


def test_the_help_texts_are_what_the_tool_prints() -> None:
    """To the byte; `make docs` brings them up to date."""
    assert help_texts() == SHOWN


def test_every_command_is_shown_with_every_option() -> None:
    blocks = dict(re.findall(r"```console\n\$ (leakaudit[ \w]*) --help\n(.*?)\n```", SHOWN, re.S))
    assert list(blocks) == [" ".join(("leakaudit", *path)) for path in commands()]
    assert {"leakaudit check", "leakaudit bench table", "leakaudit completion"} <= blocks.keys()
    for path, command in commands().items():
        text = blocks[" ".join(("leakaudit", *path))]
        assert text.startswith("Usage: " + " ".join(("leakaudit", *path)))
        for option in (opt for parameter in command.params for opt in parameter.opts):
            assert option in text or not option.startswith("--")


def test_nothing_is_wider_than_the_terminal() -> None:
    assert max(map(len, SHOWN.splitlines())) <= WIDTH


def test_the_results_are_those_of_the_committed_files() -> None:
    shown = part_of(README.read_text(encoding="utf-8"), "results")
    assert shown == results()
    # Each row of each file, not just some text.
    assert "lenet_main" in shown
    assert shown.count("```text") == len(
        list((README.parent / "leakaudit/bench/results").glob("*.json"))
    )
