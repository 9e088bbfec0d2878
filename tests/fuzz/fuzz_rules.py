"""Fuzz target: rule files and the expressions in them.

python tests/fuzz/fuzz_rules.py [-max_total_time=600] [CORPUS]
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from choices import Choices
from running import fuzz

from leakaudit.errors import LeakauditError
from leakaudit.rules.engine import evaluate_layer
from leakaudit.rules.expression import parse_condition
from leakaudit.rules.rule import read_rule
from leakaudit.rules.symbols import Kind, Level, symbols_of

RULES = Path(__file__).parents[2] / "rules"
TOKENS = (
    *("X", "A", "B", "bound", "rho", "and", "or", "not", "(", ")", "+", "-", "*", "/", "**", "%"),
    *("<", "<=", "==", "!=", ">", "0", "1", "2", "1e9", "0.5", "9" * 30, "if", "else", "lambda"),
    *("[", "]", ".", ",", "'", '"', "\\", "\n", "\t", "#", "=", ":=", "__class__", "min", "~", "@"),
    *("is", "in", "True", "None", "1j", "0x", "is_linear", "path_reaches", "{X}", '"""', "é", "\0"),
)


@cache
def _rules() -> tuple[str, ...]:
    return tuple(path.read_text(encoding="utf-8") for path in sorted(RULES.glob("*.toml")))


def expression(choices: Choices) -> str:
    """Tokens of the language and others, in any order."""
    return " ".join(choices.one_of(TOKENS) for _ in range(choices.below(40)))


def rule_text(choices: Choices) -> bytes:
    """A rule file with pieces left out, doubled, and replaced."""
    text = choices.one_of(_rules())
    lines = text.splitlines()
    for _ in range(1 + choices.below(5)):
        index = choices.below(len(lines))
        match choices.below(5):
            case 0:
                del lines[index]
                lines = lines or [""]
            case 1:
                lines.insert(index, lines[choices.below(len(lines))])
            case 2:
                lines[index] = f'condition = """{expression(choices)}"""'
            case 3:
                key = lines[index].partition("=")[0]
                lines[index] = (
                    f"{key}= {choices.one_of(['1', 'true', '[]', '{}', '[[1]]', '1e999'])}"
                )
            case _:
                lines[index] += choices.text(TOKENS)
    made = "\n".join(lines).encode()
    return made if choices.below(8) else made + choices.raw(32)


def one_input(data: bytes) -> None:
    """Read an expression and a rule, and apply both; whatever escapes is a crash."""
    choices = Choices(data)
    symbols = symbols_of(Level.LAYER)
    if choices.below(2):
        numbers = {name: 1 + choices.below(9) for name in symbols}
        text = expression(choices) if choices.below(4) else data.decode(errors="replace")
        try:
            parsed = parse_condition(text, frozenset(symbols))
            flags = {name: bool(numbers[name] % 2) for name in parsed.flags}
            parsed.evaluate(numbers | flags)
        except LeakauditError:
            return
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "LA001.toml"
        path.write_bytes(rule_text(choices))
        try:
            rule = read_rule(path, "rules/LA001.toml")
            kinds = {Kind.NUMBER: 3, Kind.FLAG: True, Kind.TEXT: "conv1"}
            evaluate_layer(rule, {name: kinds[symbol.kind] for name, symbol in symbols.items()})
        except LeakauditError:
            return


if __name__ == "__main__":
    fuzz(one_input)
