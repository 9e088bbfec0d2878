"""The table of covered operators: one partition of families, the same in both readers."""

from __future__ import annotations

from pathlib import Path

import pytest

from leakaudit.frontends.aten.operators import registry as aten
from leakaudit.frontends.coverage import coverage
from leakaudit.frontends.onnx.operators import registry as onnx

REGISTRIES = {"onnx": onnx, "aten": aten}


@pytest.mark.parametrize("reader", REGISTRIES)
def test_every_file_is_a_family_and_every_family_a_file(reader: str) -> None:
    registry = REGISTRIES[reader]
    folder = Path(str(registry.__file__)).parent
    assert set(registry.FAMILIES) == {path.stem for path in folder.glob("*.py")} - {
        "__init__",
        "registry",
    }
    assert list(registry.FAMILIES) == sorted(registry.FAMILIES)


def test_both_readers_have_the_same_families() -> None:
    assert list(onnx.FAMILIES) == list(aten.FAMILIES)


@pytest.mark.parametrize("reader", REGISTRIES)
def test_an_operator_stands_in_one_family(reader: str) -> None:
    named = [name for family in REGISTRIES[reader].FAMILIES.values() for name in family]
    assert len(named) == len(set(named))
    assert not set(named) & set(REGISTRIES[reader].REFUSED)


def test_the_table_lists_everything_that_the_readers_take() -> None:
    table = {line.family: line for line in coverage()}
    assert list(table) == sorted(onnx.FAMILIES)
    # In ONNX a Gather reads a table by index.
    assert [family for family, line in table.items() if not line.onnx] == ["embedding"]
    assert all(line.aten for line in table.values())
    assert {name for line in table.values() for name in line.onnx} == set(onnx.OPERATORS)
    assert {name for line in table.values() for name in line.aten} == {
        target.split(".")[1].rstrip("_") for target in aten.BUILDERS
    }
    assert table["convolution"].onnx == ("Conv", "ConvTranspose")
    assert {"conv1d", "conv2d", "conv3d"} <= set(table["convolution"].aten)
    assert {"Gemm", "MatMul"} <= set(table["dense"].onnx)
    assert "MaxPool" in table["pooling"].onnx
    assert "max_pool2d" in table["pooling"].aten
