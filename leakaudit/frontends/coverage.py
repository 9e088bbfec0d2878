"""Which operators of ONNX and ATen are understood, by family: what the readers' tables list.

Needs neither torch nor a model.
"""

from __future__ import annotations

from dataclasses import dataclass

from leakaudit.frontends.aten.operators.registry import FAMILIES as ATEN
from leakaudit.frontends.onnx.operators.registry import FAMILIES as ONNX


@dataclass(frozen=True, slots=True)
class Coverage:
    """One line of the table.

    Attributes:
        family: Name of the family, which is that of the builders' files.
        onnx: Names of ONNX operators.
        aten: Names of ATen operators, without the name of the overload.
    """

    family: str
    onnx: tuple[str, ...]
    aten: tuple[str, ...]


def coverage() -> tuple[Coverage, ...]:
    """One line for each family, in alphabetical order."""
    return tuple(
        Coverage(
            family,
            tuple(sorted(ONNX.get(family, ()))),
            tuple(sorted({_plain(target) for target in ATEN.get(family, ())})),
        )
        for family in sorted({*ONNX, *ATEN})
    )


def _plain(target: str) -> str:
    """`conv2d` for `aten.conv2d.padding`."""
    return target.removeprefix("aten.").split(".")[0].rstrip("_")
