"""The table of covered operators, read off the builders' code."""

from __future__ import annotations

from leakaudit import operators as ops
from leakaudit.frontends.coverage import coverage


def test_every_operator_of_the_graph_comes_from_somewhere() -> None:
    table = {line.operator: line for line in coverage()}
    kinds = {getattr(ops, name) for name in ops.__all__}
    assert set(table) == kinds - {ops.Operator, ops.Activation, ops.Unsupported}
    assert [line.operator.__name__ for line in coverage()] == sorted(k.__name__ for k in table)
    assert all(line.onnx or line.aten for line in table.values())
    assert {kind.__name__ for kind, line in table.items() if not line.onnx} == {
        "AdaptiveAveragePool"
    }
    assert table[ops.Conv].onnx == ("Conv",)
    assert {"conv1d", "conv2d", "conv3d"} <= set(table[ops.Conv].aten)
    assert table[ops.Selu].onnx == ("Selu",)
    assert set(table[ops.Linear].onnx) == {"Gemm", "MatMul"}
