"""The expression language: exact values, the same in sympy, and nothing beyond the grammar."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest
import sympy
from hypothesis import given, settings, strategies as st
from sympy_formula import sympy_formula

from leakaudit.errors import UsageError
from leakaudit.rules.expression import Expression, ExpressionError, parse, parse_condition

SYMBOLS = frozenset({"X", "A", "B", "rho", "flag", "other"})
LENET_MAIN_FIRST = {"X": 3072, "A": 900, "B": 3072, "rho": 1.0, "flag": True, "other": False}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("X <= A + B", True),
        ("A + B - X", 900),
        ("A / X", Fraction(75, 256)),
        ("-A // 7", -129),
        ("A // 0.7", 1285),
        ("2 ** 3 * X", 24576),
        ("X ** 0", 1),
        ("0.1 + 0.2 == 0.3", True),
        ("0 < A < X <= B", True),
        ("0 < A > X", False),
        ("min(X, A, B) + max(A, 1)", 1800),
        ("floor(X / 900) * 10 + ceil(X / 900)", 34),
        ("flag and not other or X < 0", True),
        ("flag and (other or X < 0)", False),
        ("X == 0 or A / X < 1", True),
        ("  X\n  <= A", False),
        ("1_000", 1000),
        ("floor(7 / 2) / 2", Fraction(3, 2)),
    ],
)
def test_value(text: str, value: object) -> None:
    result = parse(text, SYMBOLS).evaluate(LENET_MAIN_FIRST)
    assert result == value
    assert isinstance(result, bool) == isinstance(value, bool)


def test_and_or_stop_before_a_division_by_zero() -> None:
    guarded = parse("X == 0 or A / X < 1", SYMBOLS)
    assert guarded.evaluate({"X": 0, "A": 5}) is True
    with pytest.raises(ExpressionError, match="division by zero"):
        parse("A / X < 1", SYMBOLS).evaluate({"X": 0, "A": 5})


def test_a_float_counts_as_the_decimal_it_prints_as() -> None:
    # The double nearest to 0.7 lies below 7/10; a rule "rho >= 0.7" must still be met at 0.7.
    assert parse("rho >= 0.7", SYMBOLS).evaluate({"rho": 0.7}) is True
    assert parse("rho * 10 == 7", SYMBOLS).evaluate({"rho": 0.7}) is True


HOSTILE = [
    ("__import__('os')", '"\'" is not allowed', 12),
    ("__import__", "the name __import__ is not known", 1),
    ("eval(X)", "calling eval is not allowed", 1),
    ("X <= A.real", "attribute access", 6),
    ("X.__class__.__mro__", "attribute access", 1),
    ("X[0]", r"'\[' is not allowed", 2),
    ("lambda: X", "':' is not allowed", 7),
    ("(X := 1)", "':' is not allowed", 4),
    ("X if A else B", "a conditional expression", 1),
    ("(X for X in A)", "a generator expression", 1),
    ("max(*X)", "max takes two values or more", 1),
    ("max(*X, *A)", "an unpacked argument", 5),
    ("min(X, key=A)", "a named argument", 1),
    ("floor(X, A)", "floor takes one value, not 2", 1),
    ("(X, A)", "a list of values", 1),
    ("X, A", "a list of values", 1),
    ("X is A", 'comparing with "is" or "in"', 1),
    ("X in A", 'comparing with "is" or "in"', 1),
    ("1 << 99", "a bit shift", 1),
    ("X % 2", "'%' is not allowed", 3),
    ("True", "a constant other than a real number", 1),
    ("None", "a constant other than a real number", 1),
    ("2j", "a constant other than a real number", 1),
    ("X ** 9", "an exponent must be a whole number from 0 to 8", 1),
    ("X ** -1", "an exponent must be", 1),
    ("X ** 0.5", "an exponent must be", 1),
    ("X ** A", "an exponent must be", 1),
    ("2 ** 2 ** 2", "an exponent must be", 1),
    ("((X ** 8) ** 8) ** 8", "a power of a power", 2),
    ("(1 + X ** 8) ** 8", "a power of a power", 1),
    ("9" * 17, "a number outside", 1),
    ("1e999", "a number outside", 1),
    ("1e-99", "a number outside", 1),
    ("X / 0", "division by zero", 1),
    ("-" * 400 + "X", "nested too deeply", 33),
    ("+".join("X" * 200), "nested too deeply", None),
    ("(" * 250 + "X" + ")" * 249, "not an expression|nested too deeply", None),
    ("X" * 501, "501 characters, at most 500", None),
    ("", "nothing stands", None),
    ("X <=", "not an expression", None),
    ("A < 1or X < 2", "not an expression", 5),
    ("X\x00", "is not allowed", 2),
    ("X <= Ａ", "'Ａ' is not allowed", 6),  # full width: Python would read it as A
    ("not X + 1", "a number, where a condition is needed", 5),
    ("(X < A) + 1", "a condition, where a number is needed", 2),
    ("flag and flag + 1 > 0", "flag is used both as a number and as yes or no", 10),
    ("rh <= 1", "the name rh is not known, did you mean rho?", 1),
    ("  X <= A.real", "attribute access", 8),
]


@pytest.mark.parametrize(("text", "reason", "column"), HOSTILE)
def test_refused_with_the_reason_and_the_place(text: str, reason: str, column: int | None) -> None:
    with pytest.raises(ExpressionError, match=reason) as caught:
        parse(text, SYMBOLS)
    assert isinstance(caught.value, UsageError)
    if column is not None:
        assert caught.value.column == column
        assert f"column {column}" in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=40), st.text("XAB1.0eE_ ()+-*/<>=!,andortif", max_size=40)))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        expression = parse(text, SYMBOLS)
    except ExpressionError:
        return
    assert expression.names <= SYMBOLS


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"X": 1}, "flag has no value"),
        ({"X": 1, "flag": 1}, "flag must be yes or no, not 1"),
        ({"X": True, "flag": True}, "X must be a number, not True"),
        ({"X": float("nan"), "flag": True}, "X must be finite"),
    ],
)
def test_values_of_the_wrong_kind(values: dict[str, int | float | bool], reason: str) -> None:
    with pytest.raises(ExpressionError, match=reason):
        parse("X > 0 and flag", SYMBOLS).evaluate(values)


def test_a_condition_is_yes_or_no() -> None:
    assert parse_condition("flag", SYMBOLS).evaluate({"flag": True}) is True
    with pytest.raises(ExpressionError, match="a number, where a condition"):
        parse_condition("X + A", SYMBOLS)


def test_formula_can_be_solved() -> None:
    # lenet_main's first layer, filters left open: 3 channels, 5x5 taps, 256 output positions.
    filters = sympy.Symbol("filters", positive=True)
    condition = sympy_formula(
        parse("X <= A + B", SYMBOLS),
        {"X": sympy.Integer(3072), "A": 75 * filters, "B": 256 * filters},
    )
    boundary = sympy.solve(sympy.Eq(condition.lhs, condition.rhs), filters)
    assert boundary == [sympy.Rational(3072, 331)]  # from 10 filters on


def test_an_expression_without_meaning_is_refused() -> None:
    with pytest.raises(ExpressionError, match="division by zero"):
        parse("1 / (1 - 1) > X", SYMBOLS).evaluate({"X": 1})


NAMES = ("X", "A", "B")
FLAGS = ("flag", "other")
LITERALS = st.one_of(
    st.integers(0, 20).map(str), st.integers(0, 60).map(lambda quarters: repr(quarters / 4))
)
DIVISORS = st.one_of(st.sampled_from(NAMES), st.integers(1, 9).map(str), st.just("0.3"))


def _bigger_number(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, st.sampled_from(["/", "//"]), DIVISORS).map(lambda t: f"({''.join(t)})"),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(
            lambda t: f"{t[0]}({t[1]}, {t[2]})"
        ),
        st.tuples(st.sampled_from(["floor", "ceil", "-"]), inner).map(lambda t: f"{t[0]}({t[1]})"),
    )


POWERS = st.tuples(st.sampled_from(NAMES), st.integers(0, 4)).map(lambda t: f"{t[0]}**{t[1]}")
NUMBERS = st.recursive(
    st.one_of(st.sampled_from(NAMES), LITERALS, POWERS), _bigger_number, max_leaves=5
)
RELATIONS = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
COMPARISONS = st.one_of(
    st.tuples(NUMBERS, RELATIONS, NUMBERS).map(" ".join),
    st.tuples(NUMBERS, RELATIONS, NUMBERS, RELATIONS, NUMBERS).map(" ".join),
)
CONDITIONS = st.recursive(
    st.one_of(COMPARISONS, st.sampled_from(FLAGS)),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda t: f"({t[0]}) {t[1]} ({t[2]})"
        ),
        inner.map(lambda t: f"not ({t})"),
    ),
    max_leaves=4,
)
EXPRESSIONS = st.one_of(
    NUMBERS.map(lambda text: parse(text, SYMBOLS)),
    CONDITIONS.map(lambda text: parse_condition(text, SYMBOLS)),
)
VALUES = st.fixed_dictionaries(
    {
        name: st.one_of(st.integers(1, 50), st.integers(1, 99).map(lambda n: n / 10))
        for name in NAMES
    }
    | {name: st.booleans() for name in FLAGS}
)


@settings(max_examples=120, deadline=None)
@given(EXPRESSIONS, VALUES)
def test_sympy_agrees_exactly(
    expression: Expression, values: dict[str, int | float | bool]
) -> None:
    result = expression.evaluate(values)
    exact = {
        name: sympy.true
        if value is True
        else sympy.false
        if value is False
        else sympy.Rational(str(value))
        for name, value in values.items()
    }
    formula = sympy_formula(expression)
    by_name = {symbol: exact[symbol.name] for symbol in formula.free_symbols}
    for formula_value in (formula.subs(by_name), sympy_formula(expression, exact)):
        reference = formula_value.doit()  # sympy leaves Min(1, 2) standing inside Max
        if isinstance(result, bool):
            assert bool(reference) is result
        else:
            assert Fraction(int(reference.p), int(reference.q)) == result


def test_checking_rules_needs_neither_sympy_nor_torch() -> None:
    program = (
        "import sys; from leakaudit.rules.registry import load_rules\n"
        "rules = load_rules()\n"
        "met = rules[0].condition.evaluate({'X': 3072, 'A': 900, 'B': 3072})\n"
        "print(met, sorted({'sympy', 'torch', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "[]"]
