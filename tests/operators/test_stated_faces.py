"""Every operator states all of its static faces: what is left out is an error, never a default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from operator_case import Case
from operator_cases import CASES

from leakaudit import operators as ops
from leakaudit.operators.activation import Increasing
from leakaudit.operators.base import Affine, Opaque
from leakaudit.operators.moved import Moves


@pytest.mark.parametrize(
    ("base", "left_out"),
    [
        (ops.Operator, ["derive", "gradient_bound", "output_shapes", "stop"]),
        (ops.Activation, ["invertible", "monotone", "saturation_levels"]),
        (Opaque, ["gradient_bound", "output_shapes", "reason"]),
        (Affine, ["gradient_bound", "output_shapes", "stop"]),
        (Moves, ["gradient_bound", "keeps", "output_shapes"]),
    ],
)
def test_an_operator_that_leaves_a_face_out_cannot_be_defined(
    base: type[ops.Operator], left_out: list[str]
) -> None:
    with pytest.raises(TypeError, match=f"Sketch does not state: {', '.join(left_out)}$"):

        @dataclass(frozen=True, slots=True)
        class Sketch(base):
            pass


def test_an_activation_may_not_leave_one_trait_out() -> None:
    with pytest.raises(TypeError, match=r"Sketch does not state: invertible$"):

        @dataclass(frozen=True, slots=True)
        class Sketch(ops.Activation):
            monotone: ClassVar[bool] = True
            saturation_levels: ClassVar[None] = None


def test_what_states_all_is_an_operator() -> None:
    @dataclass(frozen=True, slots=True)
    class Cube(Increasing):
        """o³."""

    assert Cube().monotone
    assert Cube().invertible


def test_every_operator_stands_in_one_family() -> None:
    names = [name for family in ops.FAMILIES for name in family.__all__]
    assert sorted(names) == sorted(set(names))
    for family in ops.FAMILIES:
        own = {
            name
            for name, kind in vars(family).items()
            if isinstance(kind, type)
            and issubclass(kind, ops.Operator)
            and kind.__module__ == family.__name__
            and "abstract" not in vars(kind)
        }
        assert own == set(family.__all__) - {"Activation"}


def test_saturation_levels_go_with_what_is_not_invertible() -> None:
    """An activation is undone everywhere exactly where it is monotone and flat nowhere."""
    for case in CASES:
        if isinstance(case.op, ops.Activation) and case.op.monotone:
            low, high = case.op.saturation_levels or (-torch.inf, torch.inf)
            assert case.op.invertible is (low == -torch.inf and high == torch.inf)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_output_shapes_are_those_that_are_computed(case: Case) -> None:
    inputs = [tuple(x.shape) for x in case.inputs]
    roles = {role: tuple(x.shape) for role, x in case.parameters.items()}
    outputs = [tuple(y.shape) for y in case.reference(case.inputs, case.parameters)]
    assert list(case.op.output_shapes(inputs, roles, outputs)) == outputs
