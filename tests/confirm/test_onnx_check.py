"""Our execution of a graph against onnxruntime, on a file written here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import onnx
from hand_built import graph_of, network, probe, weights_of
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from leakaudit.confirm.confirm import ConfirmOptions, confirm
from leakaudit.confirm.onnxruntime_check import check_against_onnxruntime
from leakaudit.errors import AuditError
from leakaudit.execute import activation as activations
from leakaudit.leakpath.path import find_leak_path
from leakaudit.operators import Relu

SHAPE = (1, 2, 8, 8)


def model() -> nn.Sequential:
    return network(
        nn.Conv2d(2, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)
    )


def write(folder: Path, module: nn.Sequential) -> str:
    """The same network as an ONNX file, with the graph's tensor names."""
    weights = {n: w.numpy().astype(np.float32) for n, w in weights_of(module).items()}
    nodes = [
        helper.make_node(
            "Conv", ["input", "0.weight", "0.bias"], ["t0"], strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", ["t0"], ["t1"]),
        helper.make_node("Flatten", ["t1"], ["t2"]),
        helper.make_node("Gemm", ["t2", "3.weight", "3.bias"], ["t3"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("t3", TensorProto.FLOAT, (1, 5))],
        [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    path = folder / "net.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return str(path)


def check(path: str, module: nn.Sequential) -> float:
    graph = graph_of(module, SHAPE, "float32")
    return check_against_onnxruntime(graph, path, weights_of(module), {"input": probe(SHAPE)})


def test_a_right_execution_agrees_to_rounding(tmp_path: Path) -> None:
    module = model()
    assert check(write(tmp_path, module), module) < 1e-5


def wrong_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = activations.apply

    def wrong(op: Any, o: Any, slope: Any) -> Any:
        return o.abs() if isinstance(op, Relu) else honest(op, o, slope)

    monkeypatch.setattr(activations, "apply", wrong)


def test_a_wrong_execution_is_an_audit_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = model()
    path = write(tmp_path, module)
    wrong_relu(monkeypatch)
    with pytest.raises(AuditError, match=r"differs from onnxruntime's by \d"):
        check(path, module)


def test_confirmation_does_not_build_on_a_wrong_execution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = model()
    path = write(tmp_path, module)
    graph = graph_of(module, SHAPE, "float32")
    options = ConfirmOptions(device="cpu")
    leak = find_leak_path(graph, "cross-entropy")
    assert confirm(graph, leak, ["3"], options, file=path).layers["3"].mse is not None
    wrong_relu(monkeypatch)
    with pytest.raises(AuditError, match="differs from onnxruntime's"):
        confirm(graph, leak, ["3"], options, file=path)


def test_weights_that_are_not_those_of_the_file_are_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, model())
    other = model()
    other[3].bias.data += 0.05
    with pytest.raises(AuditError, match="differs from onnxruntime's"):
        check(path, other)


def test_an_execution_that_is_not_finite_is_an_audit_error(tmp_path: Path) -> None:
    path = write(tmp_path, model())
    other = model()
    other[3].bias.data[2] = torch.nan
    with pytest.raises(AuditError, match="differs from onnxruntime's"):
        check(path, other)


@pytest.mark.parametrize("content", [b"", b"not onnx at all"])
def test_a_file_that_onnxruntime_cannot_run_is_an_audit_error(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(AuditError, match="onnxruntime cannot run it"):
        check(str(path), model())
