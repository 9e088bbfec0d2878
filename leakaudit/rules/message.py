"""Message templates: `{name}` stands for a symbol. No attributes, no formats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, Context
from fractions import Fraction

from leakaudit.errors import UsageError

_FIELD = re.compile(r"\{([A-Za-z_]+)\}")
# Rounded down, so that a layer 99.96% determined is never printed as fully determined.
_THREE_DIGITS = Context(prec=3, rounding=ROUND_DOWN)


@dataclass(frozen=True, slots=True)
class Template:
    """A checked template; `fields` are the symbols it names."""

    text: str
    fields: frozenset[str]

    def render(self, values: Mapping[str, object]) -> str:
        """Put in the values. Braces in a value (a layer's name is untrusted) stay as they are.

        Raises:
            UsageError: A field has no value.
        """
        if absent := sorted(self.fields - values.keys()):
            raise UsageError(f"no value for {', '.join(absent)} of the text {self.text!r}")
        return _FIELD.sub(lambda field: _shown(values[field[1]]), self.text)


def template(text: str) -> Template:
    """Check and return a template.

    Raises:
        UsageError: A brace that does not enclose a plain name.
    """
    rest = _FIELD.sub("", text)
    if "{" in rest or "}" in rest:
        raise UsageError("braces enclose the plain name of a symbol, as in {bound}, nothing else")
    return Template(text, frozenset(_FIELD.findall(text)))


def _shown(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float() | Fraction():
            exact = Fraction(value)
            if exact.denominator == 1:
                return str(exact.numerator)
            # A float counts as the decimal it prints as: 0.7 is not 0.6999...
            decimal = (
                _THREE_DIGITS.create_decimal(float.__repr__(value))
                if isinstance(value, float)
                else _THREE_DIGITS.divide(exact.numerator, exact.denominator)
            )
            return format(decimal.normalize(_THREE_DIGITS), "f")
        case "":
            return "(none)"
        case _:
            return str(value)
