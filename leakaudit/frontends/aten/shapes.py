"""Sizes in an export archive: integers, or expressions in symbols such as `2*s77`.

The expressions are text from an untrusted file. They are parsed to a syntax tree of which a short
list of node types is computed in exact rational arithmetic; nothing is ever evaluated as code.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from leakaudit.frontends.aten.schema import FormatError, field

_MAX_TEXT = 20_000
_MAX_VALUE = 2**63
_MAX_AXES = 32


class OpenSymbolError(Exception):
    """The expression has a symbol whose value is not known (the text is its name)."""


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or not 0 <= exponent <= 64:
        raise FormatError("a size has an exponent that is not a small integer")
    return base ** int(exponent)


# Both notations that torch writes: srepr ("Mul(Integer(2), Symbol('s77'))") and str ("2*s77").
_FUNCTIONS: Mapping[str, Callable[..., Fraction]] = {
    "Integer": lambda value: value,
    "Rational": lambda above, below: above / below,
    "Identity": lambda value: value,
    "Add": lambda *terms: sum(terms, Fraction(0)),
    "Mul": lambda *factors: math.prod(factors, start=Fraction(1)),
    "Pow": _power,
    "PowByNatural": _power,
    "Max": max,
    "Min": min,
    **dict.fromkeys(("FloorDiv", "CleanDiv"), lambda above, below: Fraction(above // below)),
    "CeilDiv": lambda above, below: Fraction(-(-above // below)),
    "IntTrueDiv": operator.truediv,
    **dict.fromkeys(("Mod", "PythonMod"), operator.mod),
    "ModularIndexing": lambda base, divisor, modulus: (base // divisor) % modulus,
    **dict.fromkeys(("FloorToInt", "floor"), lambda value: Fraction(math.floor(value))),
    **dict.fromkeys(("CeilToInt", "ceiling"), lambda value: Fraction(math.ceil(value))),
}
_OPERATORS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: operator.mod,
    ast.Pow: _power,
}


def evaluate(text: str, symbols: Mapping[str, int]) -> int:
    """Compute an integer expression.

    Args:
        text: sympy's `srepr` or `str` of the expression.
        symbols: Values of the symbols.

    Raises:
        OpenSymbolError: A symbol has no value.
        FormatError: The text is not an integer expression of the known functions.
    """
    if len(text) > _MAX_TEXT:
        raise FormatError("a size is an expression of more than 20,000 characters")
    try:
        value = _value(ast.parse(text, mode="eval").body, symbols)
    except ZeroDivisionError as error:
        raise FormatError(f"the size {text[:80]!r} divides by zero") from error
    # MemoryError and RecursionError are how CPython reports text nested too deeply.
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise FormatError(f"the size {text[:80]!r} is not an expression") from error
    if value.denominator != 1:
        raise FormatError(f"the size {text[:80]!r} is not an integer")
    return int(value)


def _value(node: ast.expr, symbols: Mapping[str, int]) -> Fraction:
    result: Fraction
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            result = Fraction(number)
        case ast.Name(id=name):
            result = _symbol(name, symbols)
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))]):
            # The keywords are sympy's assumptions (positive=True, integer=True).
            result = _symbol(name, symbols)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            result = _FUNCTIONS[name](*(_value(argument, symbols) for argument in arguments))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            result = -_value(operand, symbols)
        case ast.BinOp(op=sign, left=left, right=right) if type(sign) in _OPERATORS:
            result = _OPERATORS[type(sign)](_value(left, symbols), _value(right, symbols))
        case _:
            raise FormatError(f"a size uses {ast.unparse(node)[:80]!r}, which is not understood")
    if abs(result.numerator) > _MAX_VALUE or result.denominator > _MAX_VALUE:
        raise FormatError("a size is too large")
    return result


def _symbol(name: str, symbols: Mapping[str, int]) -> Fraction:
    if name not in symbols:
        raise OpenSymbolError(name)
    return Fraction(symbols[name])


def size(record: object, symbols: Mapping[str, int]) -> int:
    """Compute a `SymInt` record ({"as_int": 3} or {"as_expr": {...}}), which must be >= 0.

    Raises:
        OpenSymbolError: See `evaluate`.
        FormatError: See `evaluate`.
    """
    value = integer(record, symbols)
    if not 0 <= value <= 2**48:
        raise FormatError(f"a size comes out as {value}")
    return value


def integer(record: object, symbols: Mapping[str, int]) -> int:
    """Compute a `SymInt` record of any sign; raises as `size` does."""
    text = expression(record)
    return field(record, "as_int", int) if text is None else evaluate(text, symbols)


def expression(record: object) -> str | None:
    """Return the expression of a `SymInt` record, or None where it is a plain integer."""
    if isinstance(record, dict) and "as_expr" in record:
        return field(record["as_expr"], "expr_str", str)
    return None


def shape(meta: object, symbols: Mapping[str, int]) -> tuple[int, ...]:
    """Compute the shape of a `TensorMeta` record; raises as `size` does."""
    sizes = field(meta, "sizes", list)
    if len(sizes) > _MAX_AXES:
        raise FormatError(f"a tensor has {len(sizes)} axes")
    return tuple(size(record, symbols) for record in sizes)


def row_major(meta: object, shape: Sequence[int], symbols: Mapping[str, int]) -> bool:
    """Whether the strides of a `TensorMeta` record are those of its elements in row-major order."""
    expected = 1
    try:
        strides = [integer(record, symbols) for record in field(meta, "strides", list)]
    except (OpenSymbolError, FormatError):
        return False
    if len(strides) != len(shape):
        return False
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True


def fixed_shape(meta: object) -> tuple[int, ...]:
    """Compute the shape of a `TensorMeta` record that may hold no symbols, as stored numbers do.

    Raises:
        FormatError: It holds a symbol, or as for `size`.
    """
    try:
        return shape(meta, {})
    except OpenSymbolError as error:
        raise FormatError("a stored tensor has an open size") from error


def hinted(meta: object) -> tuple[int, ...]:
    """Return the sizes the model was exported with, batch 1 where the batch is open: an example."""
    sizes: list[int] = []
    for axis, record in enumerate(field(meta, "sizes", list)):
        if expression(record) is None:
            sizes.append(field(record, "as_int", int))
            continue
        hint = record["as_expr"].get("hint")
        known = isinstance(hint, dict) and isinstance(hint.get("as_int"), int)
        sizes.append(hint["as_int"] if known and axis > 0 else 1 if axis == 0 else 32)
    return tuple(sizes)


def solve(wanted: Sequence[tuple[str, int]], symbols: Mapping[str, int]) -> dict[str, int]:
    """Find the symbols for which every expression takes its wanted value.

    Each expression must be solvable in turn: affine in the one symbol that is still open, which
    covers every input dimension that torch.export writes (`s77`, `2*s77`, `s77 + 1`). Expressions
    that are not are left: the caller finds their symbols still open.

    Args:
        wanted: Pairs (expression, value).
        symbols: Values known beforehand.

    Raises:
        FormatError: No integer solves an expression, or two of them contradict each other.
    """
    found = dict(symbols)
    pending = list(wanted)
    progress = True
    while pending and progress:
        progress = False
        for text, value in list(pending):
            try:
                actual = evaluate(text, found)
            except OpenSymbolError as open_symbol:
                root = _affine_root(text, value, str(open_symbol), found)
                if root is None:
                    continue
                found[str(open_symbol)] = root
            else:
                if actual != value:
                    raise FormatError(f"the size {text[:80]!r} is {actual} and {value} was asked")
            pending.remove((text, value))
            progress = True
    return found


def _affine_root(text: str, value: int, name: str, symbols: Mapping[str, int]) -> int | None:
    """Solve a·s + b = value for the positive integer s."""
    try:
        first, second, third = (evaluate(text, {**symbols, name: at}) for at in (1, 2, 3))
    except OpenSymbolError:
        return None
    slope = second - first
    if slope == 0 or third - second != slope:
        return None
    steps, rest = divmod(value - first, slope)
    if rest or steps < -1:
        raise FormatError(f"no size solves {text[:80]!r} = {value}")
    return 1 + steps
