"""Every operator of the graph: values against an independent reference, gradients, devices."""

from __future__ import annotations

import ast
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from one_node import execute_one, shapes_of
from operator_case import Case
from operator_cases import CASES
from places import PACKAGE

from leakaudit import operators
from leakaudit.execute.dispatch import EXECUTORS, FAMILIES, OPERATORS, merged
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


@pytest.mark.parametrize("operator", sorted(CONCRETE - {Unsupported}, key=lambda c: c.__name__))
def test_every_operator_has_exactly_one_executor(operator: Any) -> None:
    assert sum(operator in family.EXECUTORS for family in FAMILIES) == 1
    assert EXECUTORS[operator] in [family.EXECUTORS.get(operator) for family in FAMILIES]


def names_in_the_room() -> dict[str, set[str]]:
    """Per file of execute/ every name that its code uses."""
    found = {}
    for path in (PACKAGE / "execute").glob("*.py"):
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        nodes = [node for node in tree if isinstance(node, ast.Name | ast.alias | ast.Attribute)]
        found[path.stem] = {
            getattr(n, "id", None) or getattr(n, "name", None) or n.attr for n in nodes
        }
    return found


def test_the_families_are_the_files_that_hold_executors() -> None:
    named = {family.__name__.rpartition(".")[2] for family in FAMILIES}
    assert named | {"dispatch"} == {
        name for name, used in names_in_the_room().items() if "EXECUTORS" in used
    }


def test_an_operator_is_named_in_one_file_of_the_room() -> None:
    room = names_in_the_room()
    for operator in CONCRETE:
        assert len([name for name, used in room.items() if operator.__name__ in used]) == 1, (
            operator
        )


def test_an_operator_without_an_executor_is_an_error_at_import() -> None:
    class Unheard(Activation):
        abstract = True  # it states no faces

    with pytest.raises(TypeError, match="Unheard"):
        merged((family.EXECUTORS for family in FAMILIES), [*OPERATORS, Unheard])
    with pytest.raises(TypeError, match="two"):
        merged((family.EXECUTORS for family in (*FAMILIES, FAMILIES[0])), OPERATORS)


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
