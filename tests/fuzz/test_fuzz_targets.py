"""The fuzz targets under hypothesis, the crashes that they found, and that they do find crashes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import fuzz_onnx
import fuzz_pt2
import fuzz_rules
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.onnx.operators import registry as onnx_ops
from leakaudit.frontends.onnx.reader import load

TARGETS = (fuzz_onnx, fuzz_pt2, fuzz_rules)
# Of every length: short ones mutate little, long ones much.
INPUTS = st.binary(max_size=300)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_a_few_inputs(target: ModuleType) -> None:
    for seed in range(12):
        target.one_input(random.Random(seed).randbytes(10 * seed))


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_many_inputs(target: ModuleType) -> None:
    check_all(target.one_input, 20_000 if target is fuzz_rules else 1500)


def check_all(one_input: Callable[[bytes], None], count: int) -> None:
    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(INPUTS)
    def check(data: bytes) -> None:
        one_input(data)

    check()


@pytest.mark.parametrize("target", [fuzz_onnx, fuzz_pt2], ids=lambda target: target.__name__)
def test_mutations_are_reproducible_and_differ(target: ModuleType) -> None:
    data = [random.Random(seed).randbytes(100) for seed in range(40)]
    made = [target.mutated(entry) for entry in data]
    assert made == [target.mutated(entry) for entry in data]
    assert len(set(made)) > 35


def test_some_mutants_are_read(tmp_path: Path) -> None:
    """Where every mutant is refused at the door, nothing behind the door is tested."""
    read = 0
    for seed in range(60):
        path = tmp_path / "net.onnx"
        path.write_bytes(fuzz_onnx.mutated(random.Random(seed).randbytes(60)))
        try:
            read += bool(load(str(path), LoadOptions()).nodes)
        except Exception:
            continue
    assert 10 < read < 60


def test_a_crash_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise RecursionError("a fault of a builder")

    monkeypatch.setitem(onnx_ops.OPERATORS, "Gemm", broken)
    with pytest.raises(RecursionError):
        check_all(fuzz_onnx.one_input, 100)
