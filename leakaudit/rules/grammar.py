"""The grammar of conditions: text to tree, by whitelist and never by eval.

It is Python's grammar cut down to names from a given set, int and float literals, `+ - * / //`,
`**` with a small literal exponent, comparisons (chainable), `and or not`, parentheses and the
functions `min max floor ceil`. Python's parser reads the text, nothing runs it.
"""

from __future__ import annotations

import ast
import difflib
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import NoReturn

from leakaudit.errors import UsageError

MAX_LENGTH = 500
MAX_DEPTH = 32
MAX_EXPONENT = 8
MAX_LITERAL = 10**15  # below 2**53: integers written as floats stay exact

# ASCII only: Python folds look-alike letters of other scripts into one name.
_FOREIGN = re.compile(r"[^A-Za-z0-9_ .,()+\-*/<>=!\t\r\n]")


class ExpressionError(UsageError):
    """An expression that is not allowed, or that has no value for the numbers it was given.

    Attributes:
        reason: What is wrong, without the place.
        text: The expression.
        column: Where, counted from 1; None where the whole expression is meant.
    """

    def __init__(self, reason: str, text: str, column: int | None = None) -> None:
        where = "" if column is None else f" at column {column}"
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        super().__init__(f"{reason}{where} in the expression {shown!r}")
        self.reason = reason
        self.text = text
        self.column = column


@dataclass(frozen=True, slots=True)
class Literal:
    value: Fraction


@dataclass(frozen=True, slots=True)
class Name:
    name: str


@dataclass(frozen=True, slots=True)
class Apply:
    """An operator or function, by its spelling ("-" with one operand is the sign)."""

    op: str
    operands: tuple[Tree, ...]


Tree = Literal | Name | Apply


def read(text: str, symbols: frozenset[str]) -> tuple[Tree, frozenset[str], frozenset[str], bool]:
    """Read `text`, in which the names `symbols` may occur.

    Returns:
        The tree, the names in it that stand for numbers, those that stand for yes or no, and
        whether the whole is yes or no.

    Raises:
        ExpressionError: The text is not in the grammar; the message says what and where.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"{len(text)} characters, at most {MAX_LENGTH} are allowed", text)
    if foreign := _FOREIGN.search(text):
        raise ExpressionError(f"{foreign[0]!r} is not allowed", text, foreign.start() + 1)
    line = re.sub(r"\s", " ", text)  # keeps the columns; line breaks mean nothing here
    stripped = line.lstrip()
    indent = len(line) - len(stripped)
    if not stripped:
        raise ExpressionError("nothing stands", text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Python only warns of "1or X"
            root = ast.parse(stripped, mode="eval").body
    except SyntaxError as error:
        column = indent + (error.offset or 1)
        raise ExpressionError(f"not an expression ({error.msg})", text, column) from None
    except (MemoryError, RecursionError):
        raise ExpressionError("nested too deeply", text) from None
    parser = _Parser(text, indent, symbols)
    is_condition = _is_truth(root)
    tree = parser.truth(root, 1) if is_condition else parser.number(root, 1)
    return tree, frozenset(parser.numbers), frozenset(parser.flags), is_condition


_BINARY: Mapping[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Pow: "**",
}
_COMPARE: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_FUNCTIONS = {"min": (2, MAX_LENGTH), "max": (2, MAX_LENGTH), "floor": (1, 1), "ceil": (1, 1)}
_FORBIDDEN: Mapping[type[ast.expr], str] = {
    ast.Attribute: "attribute access",
    ast.BinOp: "a bit shift",
    ast.Call: "calling anything but min, max, floor and ceil",
    ast.Constant: "a constant other than a real number",
    ast.GeneratorExp: "a generator expression",
    ast.IfExp: "a conditional expression",
    ast.Starred: "an unpacked argument",
    ast.Tuple: "a list of values",
}


class _Parser:
    """Walks Python's syntax tree once, from what is needed at a place (number or truth) down."""

    def __init__(self, text: str, indent: int, symbols: frozenset[str]) -> None:
        self.text = text
        self.indent = indent
        self.symbols = symbols
        self.numbers: set[str] = set()
        self.flags: set[str] = set()

    def truth(self, node: ast.expr, depth: int) -> Tree:
        self.check_depth(node, depth)
        match node:
            case ast.BoolOp(op=op, values=values):
                word = "and" if isinstance(op, ast.And) else "or"
                return Apply(word, tuple(self.truth(value, depth + 1) for value in values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Apply("not", (self.truth(operand, depth + 1),))
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                sides = [self.number(side, depth + 1) for side in (left, *comparators)]
                if not all(type(op) in _COMPARE for op in ops):
                    self.fail(node, 'comparing with "is" or "in" is not allowed')
                pairs = tuple(
                    Apply(_COMPARE[type(op)], pair)
                    for op, pair in zip(ops, pairwise(sides), strict=True)
                )
                return pairs[0] if len(pairs) == 1 else Apply("and", pairs)
            case ast.Name():
                return self.name(node, self.flags, self.numbers)
            case _:
                self.refuse(node, "a number, where a condition is needed")

    def number(self, node: ast.expr, depth: int) -> Tree:
        self.check_depth(node, depth)
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self.literal(node, value)
            case ast.Name():
                return self.name(node, self.numbers, self.flags)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Apply("-", (self.number(operand, depth + 1),))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.number(operand, depth + 1)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                sides = (self.number(left, depth + 1), self.number(right, depth + 1))
                self.check_sizes(node, _BINARY[type(op)], *sides)
                return Apply(_BINARY[type(op)], sides)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
                fewest, most = _FUNCTIONS[name]
                if not fewest <= len(args) <= most:
                    count = "one value" if most == 1 else "two values or more"
                    self.fail(node, f"{name} takes {count}, not {len(args)}")
                return Apply(name, tuple(self.number(arg, depth + 1) for arg in args))
            case _:
                self.refuse(node, "a condition, where a number is needed")

    def literal(self, node: ast.expr, value: int | float) -> Literal:
        # "not <=" also refuses infinity, which is how Python reads 1e999.
        if not value <= MAX_LITERAL or 0 < value < 1 / MAX_LITERAL:
            self.fail(node, f"a number outside 1/{MAX_LITERAL} to {MAX_LITERAL} is not allowed")
        return Literal(Fraction(repr(value)))

    def name(self, node: ast.Name, kind: set[str], other: set[str]) -> Name:
        if node.id not in self.symbols:
            close = difflib.get_close_matches(node.id, sorted(self.symbols), 1)
            hint = f", did you mean {close[0]}?" if close else ""
            self.fail(node, f"the name {node.id} is not known{hint}")
        if node.id in other:
            self.fail(node, f"{node.id} is used both as a number and as yes or no")
        kind.add(node.id)
        return Name(node.id)

    def check_sizes(self, node: ast.expr, op: str, left: Tree, right: Tree) -> None:
        if op in ("/", "//") and right == Literal(Fraction(0)):
            self.fail(node, "division by zero")
        if op != "**":
            return
        exponent = right.value if isinstance(right, Literal) else None
        if exponent is None or exponent.denominator != 1 or exponent > MAX_EXPONENT:
            self.fail(node, f"an exponent must be a whole number from 0 to {MAX_EXPONENT}")
        if _has_power(left):
            self.fail(node, "a power of a power is not allowed")

    def check_depth(self, node: ast.expr, depth: int) -> None:
        if depth > MAX_DEPTH:
            self.fail(node, f"nested too deeply (more than {MAX_DEPTH} levels)")

    def refuse(self, node: ast.expr, misplaced: str) -> NoReturn:
        """Say why `node` cannot stand here: it is of the other kind, or outside the grammar."""
        what = _FORBIDDEN.get(type(node), type(node).__name__)
        match node:
            case ast.BoolOp() | ast.Compare() | ast.UnaryOp():
                self.fail(node, misplaced)
            case ast.BinOp(op=op) if type(op) in _BINARY:
                self.fail(node, misplaced)
            case ast.Constant(value=value) if type(value) in (int, float):
                self.fail(node, misplaced)
            case ast.Call(func=ast.Name(id=name), keywords=keywords) if name in _FUNCTIONS:
                self.fail(node, "a named argument is not allowed" if keywords else misplaced)
            case ast.Call(func=ast.Name(id=name)):
                what = f"calling {name}"
        self.fail(node, f"{what} is not allowed")

    def fail(self, node: ast.expr, reason: str) -> NoReturn:
        raise ExpressionError(reason, self.text, self.indent + node.col_offset + 1)


def _is_truth(node: ast.expr) -> bool:
    negation = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    return negation or isinstance(node, ast.BoolOp | ast.Compare)


def _has_power(tree: Tree) -> bool:
    if not isinstance(tree, Apply):
        return False
    return tree.op == "**" or any(_has_power(operand) for operand in tree.operands)
