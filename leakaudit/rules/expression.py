"""Expressions of rules, computed exactly, in fractions. A test holds them against sympy."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from leakaudit.rules.grammar import Apply, ExpressionError, Literal, Name, Tree, read

__all__ = ["Expression", "ExpressionError", "Value", "parse", "parse_condition"]

Value = int | float | Fraction | bool


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression.

    Attributes:
        text: As it was written.
        tree: Its meaning.
        numbers: The names that stand for numbers.
        flags: The names that stand for yes or no.
        is_condition: Whether its value is yes or no.
    """

    text: str
    tree: Tree
    numbers: frozenset[str]
    flags: frozenset[str]
    is_condition: bool

    @property
    def names(self) -> frozenset[str]:
        """Every name that occurs."""
        return self.numbers | self.flags

    def evaluate(self, values: Mapping[str, Value]) -> bool | int | Fraction:
        """Compute exactly. A float counts as the decimal number that it prints as.

        `and` and `or` stop at the first operand that decides, so `X > 0 and A / X > 1` is safe.

        Raises:
            ExpressionError: A name has no value or one of the wrong kind, or a division by zero.
        """
        known: dict[str, bool | Fraction] = {}
        for name in sorted(self.names):
            if name not in values:
                raise ExpressionError(f"{name} has no value", self.text)
            known[name] = self._checked(name, values[name])
        try:
            result: bool | Fraction = _value(self.tree, known)
        except ZeroDivisionError:
            raise ExpressionError("division by zero", self.text) from None
        if isinstance(result, Fraction) and result.denominator == 1:
            return result.numerator
        return result

    def _checked(self, name: str, value: Value) -> bool | Fraction:
        if isinstance(value, bool) != (name in self.flags):
            wanted = "yes or no" if name in self.flags else "a number"
            raise ExpressionError(f"{name} must be {wanted}, not {value!r}", self.text)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise ExpressionError(f"{name} must be finite, not {value!r}", self.text)
            return Fraction(float.__repr__(value))  # numpy's float64 prints otherwise
        return value if isinstance(value, bool) else Fraction(value)


def parse(text: str, symbols: frozenset[str]) -> Expression:
    """Parse `text`, in which the names `symbols` may occur.

    Raises:
        ExpressionError: The text is not in the grammar; the message says what and where.
    """
    return Expression(text, *read(text, symbols))


def parse_condition(text: str, symbols: frozenset[str]) -> Expression:
    """Parse `text` as `parse` does; its value must be yes or no.

    Raises:
        ExpressionError: As for `parse`, or the value is a number.
    """
    expression = parse(text, symbols)
    if expression.is_condition:
        return expression
    if isinstance(expression.tree, Name):  # alone, a name may be either; here it is a flag
        return Expression(text, expression.tree, frozenset(), expression.numbers, True)
    raise ExpressionError("a number, where a condition such as X <= A is needed", text)


_COMPUTE: Mapping[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": lambda first, *second: first - second[0] if second else -first,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "**": lambda base, exponent: base ** int(exponent),
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "not": operator.not_,
    "min": min,
    "max": max,
    "floor": math.floor,
    "ceil": math.ceil,
}


def _value(tree: Tree, names: Mapping[str, bool | Fraction]) -> Any:
    match tree:
        case Literal(value):
            return value
        case Name(name):
            return names[name]
        case Apply("and", operands):
            return all(_value(operand, names) for operand in operands)
        case Apply("or", operands):
            return any(_value(operand, names) for operand in operands)
        case Apply(op, operands):
            result = _COMPUTE[op](*(_value(operand, names) for operand in operands))
            # floor and // give an int, of which "/" would make a rounded float
            return result if isinstance(result, bool) else Fraction(result)
