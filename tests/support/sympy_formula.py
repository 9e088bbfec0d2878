"""A rule's expression as sympy reads it: the independent reference of its exact evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sympy

from leakaudit.rules.expression import Expression
from leakaudit.rules.grammar import Apply, Literal, Name, Tree

OPERATORS: Mapping[str, Callable[..., Any]] = {
    "+": lambda left, right: left + right,
    "-": lambda first, *second: first - second[0] if second else -first,
    "*": lambda left, right: left * right,
    "/": lambda left, right: left / right,
    "//": lambda left, right: sympy.floor(left / right),
    "**": lambda base, exponent: base ** int(exponent),
    "<": sympy.Lt,
    "<=": sympy.Le,
    ">": sympy.Gt,
    ">=": sympy.Ge,
    "==": sympy.Eq,
    "!=": sympy.Ne,
    "and": sympy.And,
    "or": sympy.Or,
    "not": sympy.Not,
    "min": sympy.Min,
    "max": sympy.Max,
    "floor": sympy.floor,
    "ceil": sympy.ceiling,
}


def sympy_formula(expression: Expression, values: Mapping[str, Any] | None = None) -> Any:
    """The expression in sympy, Boolean or arithmetic.

    Args:
        expression: A parsed expression.
        values: What to put in for a name. Other names become symbols, real where they are numbers.
    """
    symbols = {
        name: sympy.Symbol(name, **({"real": True} if name in expression.numbers else {}))
        for name in expression.names
    } | dict(values or {})

    def formula(tree: Tree) -> Any:
        match tree:
            case Literal(value):
                return sympy.Rational(value.numerator, value.denominator)
            case Name(name):
                return symbols[name]
            case Apply(op, operands):
                return OPERATORS[op](*map(formula, operands))

    return formula(expression.tree)
