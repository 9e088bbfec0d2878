"""Every ATen operator that is mapped, against torch's own output."""

from __future__ import annotations

import contextlib
import copy
import random
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from pt2_cases import CASES, FAMILIES, together
from pt2_direct_cases import DIRECT
from pt2_reading import (
    assert_computes,
    export,
    program,
    read,
    unsupported,
    with_program,
)

from leakaudit import operators as ops
from leakaudit.errors import AuditError
from leakaudit.frontends.aten import reader as pt2_model
from leakaudit.frontends.aten.operators import registry as pt2_ops
from leakaudit.frontends.interface import LoadOptions

nn = torch.nn


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", DIRECT)
def test_called_by_its_own_name(name):
    make, make_inputs, _ = DIRECT[name]
    model, inputs = make(), make_inputs()
    data = export(model, inputs)
    called = {node["target"] for node in program(data)["graph_module"]["graph"]["nodes"]}
    assert f"torch.ops.aten.{name}" in called
    assert_computes(pt2_model.load_bytes(data, "model.pt2", LoadOptions()), model, inputs)


@pytest.mark.parametrize("name", CASES)
def test_computes_what_torch_computes(name):
    make, make_inputs, gives = CASES[name]
    model, inputs = make(), make_inputs()
    graph = read(model, inputs)
    assert_computes(graph, model, inputs)
    assert gives <= {type(node.op) for node in graph.nodes}


# What torch's own decompositions turn into steps that depend on the data, and the step.
REFUSED_DECOMPOSED = {
    "layers: einsum of one": "aten.diagonal.default",
    "normalisation: instance_norm": "its weight is computed",
    "activations: celu": "aten.gt.Scalar",
    "activations: mish": "aten.gt.Scalar",
    "activations: softplus": "aten.gt.Scalar",
    "activations: rrelu": "aten.rrelu_with_noise_functional.default",
    "reductions: logsumexp": "aten.eq.Scalar",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_decomposed_program_computes_the_same(family):
    model, inputs = together(family, REFUSED_DECOMPOSED)
    assert_computes(read(model, inputs, decompose=True), model, inputs)


@pytest.mark.parametrize("name", REFUSED_DECOMPOSED)
def test_what_decomposed_programs_do_by_data_is_refused_by_name(name):
    make, make_inputs, _ = CASES[name]
    found = unsupported(read(make(), make_inputs(), decompose=True))
    assert REFUSED_DECOMPOSED[name] in found[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stated_shape_that_is_not_computed_is_refused(family):
    """Each output of the file in turn is said to be one longer than it is."""
    model, inputs = together(family)
    data = export(model, inputs)
    sizes = program(data)["graph_module"]["graph"]["tensor_values"]
    good = pt2_model.load_bytes(data, "model.pt2", LoadOptions())
    assert not unsupported(good)
    produced = [name for name in sizes if name in good.producers and sizes[name]["sizes"]]
    assert len(produced) >= len(FAMILIES[family])
    for name in produced:
        changed = program(data)
        meta = changed["graph_module"]["graph"]["tensor_values"][name]
        meta["sizes"][-1] = {"as_int": meta["sizes"][-1]["as_int"] + 1}
        try:
            graph = pt2_model.load_bytes(with_program(data, changed), "model.pt2", LoadOptions())
        except AuditError:
            continue
        assert unsupported(graph), name


@pytest.mark.parametrize("family", FAMILIES)
def test_damaged_arguments_never_crash_the_reader(family):
    model, inputs = together(family)
    data = export(model, inputs)
    original = program(data)
    draw = random.Random(0)
    for _ in range(60):
        changed = copy.deepcopy(original)
        for _ in range(3):
            call = draw.choice(changed["graph_module"]["graph"]["nodes"])
            if call["inputs"]:
                entry = draw.choice(call["inputs"])
                entry["arg"] = draw.choice(DAMAGE) if draw.random() < 0.7 else entry["arg"]
                entry["name"] = draw.choice([entry["name"], "dim", "self", "size"])
        # Nothing but these two outcomes: a graph, or an error for the user.
        with contextlib.suppress(AuditError):
            pt2_model.load_bytes(with_program(data, changed), "model.pt2", LoadOptions())


DAMAGE: list[dict[str, Any]] = [
    {"as_none": True},
    {"as_int": -1},
    {"as_int": 0},
    {"as_int": 2**62},
    {"as_float": "NaN"},
    {"as_float": 1e300},
    {"as_bool": True},
    {"as_string": "...,->"},
    {"as_ints": []},
    {"as_ints": [-7, 2**40]},
    {"as_ints": [0, 0]},
    {"as_tensors": []},
    {"as_optional_tensors": [{"as_none": True}]},
    {"as_scalar_type": 99},
]


def test_batch_normalisation_in_training_mode():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=0.1))
    for decompose in (False, True):
        graph = read(model.train(), (torch.randn(2, 3, 5, 5),), decompose)
        assert [type(node.op) for node in graph.nodes] == [ops.Conv, ops.BatchNorm]
        assert graph.nodes[1].op == ops.BatchNorm(0.1, training=True)
        assert dict(graph.nodes[1].parameters) == {"scale": "1.weight", "bias": "1.bias"}
        assert [node.name for node in graph.nodes] == ["0", "1"]


def test_the_table_holds_every_family_once():
    """A target in two families would silently be that of the later one."""
    families = [
        module.BUILDERS for name, module in vars(pt2_ops).items() if hasattr(module, "BUILDERS")
    ]
    folder = Path(pt2_ops.__file__).parent
    assert len(families) == len(list(folder.glob("[!_]*.py"))) - 1  # the registry itself
    assert sum(map(len, families)) == len(pt2_ops.BUILDERS)


@pytest.mark.parametrize("target", [*pt2_ops.BUILDERS, *pt2_ops.REFUSED])
def test_every_target_names_an_operator_of_torch(target):
    """A misspelt target would never be found missing: it would be Unsupported for ever."""
    library, name, variant = target.split(".")
    assert variant in getattr(getattr(torch.ops, library), name).overloads()
