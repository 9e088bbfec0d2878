"""Every operator of the graph: values against an independent reference, gradients, devices."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from one_node import execute_one, shapes_of
from operator_case import Case
from operator_cases import CASES

from leakaudit import operators
from leakaudit.execute import execute
from leakaudit.operators import Activation, Embedding, Operator, Unsupported

CONCRETE = {getattr(operators, name) for name in operators.__all__} - {Operator, Activation}

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def cast(tensors: Any, target: Any) -> Any:
    """Floating tensors to a dtype or device, integers as they are (but for the device)."""
    if isinstance(target, torch.dtype):
        return [x.to(target) if x.is_floating_point() else x for x in tensors]
    return [x.to(target) for x in tensors]


def test_every_operator_has_a_case() -> None:
    # Unsupported is refused, which test_execute_run.py holds it to.
    assert {type(case.op) for case in CASES} == CONCRETE - {Unsupported}


@pytest.mark.parametrize("operator", sorted(CONCRETE, key=lambda c: c.__name__))
def test_every_operator_is_registered(operator: Any) -> None:
    assert execute.dispatch(operator) is not execute.dispatch(Operator)


@every_case
def test_values_are_those_of_the_reference(case: Case) -> None:
    expected = case.reference(case.inputs, case.parameters)
    got = execute_one(case.op, case.inputs, shapes_of(expected), case.parameters, case.stored)
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=case.tolerance, atol=case.tolerance)


@every_case
def test_single_precision_stays_single_and_agrees(case: Case) -> None:
    expected = case.reference(case.inputs, case.parameters)
    parameters = dict(
        zip(case.parameters, cast(case.parameters.values(), torch.float32), strict=True)
    )
    got = execute_one(
        case.op, cast(case.inputs, torch.float32), shapes_of(expected), parameters, case.stored
    )
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


@every_case
def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    shapes = shapes_of(case.reference(case.inputs, case.parameters))
    floats = [i for i, x in enumerate(case.inputs) if x.is_floating_point()]
    roles = list(case.parameters)

    def function(*leaves: Any) -> Any:
        inputs = list(case.inputs)
        for index, leaf in zip(floats, leaves, strict=False):
            inputs[index] = leaf
        parameters = dict(zip(roles, leaves[len(floats) :], strict=True))
        return execute_one(case.op, inputs, shapes, parameters, case.stored)

    leaves = [case.inputs[i] for i in floats] + [case.parameters[role] for role in roles]
    leaves = [leaf.clone().requires_grad_(True) for leaf in leaves]
    assert leaves
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize(
    "case", [case for case in CASES if not isinstance(case.op, Embedding)], ids=str
)
def test_nothing_is_made_on_another_device_or_read_back(case: Case) -> None:
    # The meta device has no numbers: mixing devices or reading a value back to the host raises.
    # Embedding alone reads one truth value back, that its indices lie inside the table.
    shapes = shapes_of(case.reference(case.inputs, case.parameters))
    parameters = dict(zip(case.parameters, cast(case.parameters.values(), "meta"), strict=True))
    got = execute_one(case.op, cast(case.inputs, "meta"), shapes, parameters, case.stored)
    assert {y.device.type for y in got} == {"meta"}
    assert shapes_of(got) == shapes
