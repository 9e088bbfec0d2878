"""What is confirmed where no path runs from end to end, and what averaging takes away."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from leakaudit.audit import AuditOptions, audit
from leakaudit.findings import Finding, ModelReport, Scope, Status
from leakaudit.rconv.confirm import ConfirmOptions
from leakaudit.rules import load_rules


def report_of(module: nn.Module, shape: tuple[int, ...], folder: Path) -> ModelReport:
    path = folder / "model.pt2"
    torch.export.save(torch.export.export(module.eval(), (torch.zeros(shape),)), path)
    return audit(str(path), AuditOptions(rules=load_rules(), confirm=ConfirmOptions()))


def finding(report: ModelReport, rule: str, layer: str | None = None) -> Finding:
    (found,) = [f for f in report.findings if f.rule == rule and f.layer == layer]
    return found


def test_a_network_that_cannot_run_is_confirmed_for_synthetic_numbers(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((16, 1, 5, 5), generator=generator).numpy()
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "conv.weight"], ["o"], "conv", kernel_shape=[5, 5]),
            helper.make_node("Mystery", ["o"], ["y"], "mystery", domain="com.example"),
        ],
        "unknown",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 8, 8])],
        [numpy_helper.from_array(weight, "conv.weight")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    path = tmp_path / "unknown.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets), path)
    report = audit(str(path), AuditOptions(rules=load_rules(), confirm=ConfirmOptions()))
    assert not report.complete
    evidence = finding(report, "LA002", "conv").confirmation
    assert evidence is not None
    assert (evidence.status, evidence.scope) == (Status.CONFIRMED, Scope.LOCAL)
    assert "synthetic input and output gradient" in evidence.reason
    assert "Mystery" in evidence.reason


def test_a_global_average_leaves_one_gradient_for_all_positions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    )
    report = report_of(module, (1, 3, 16, 16), tmp_path)
    # 64 x 27 gradient constraints against 768 unknowns: by count alone more than enough.
    assert not [f for f in report.findings if f.rule in ("LA002", "LA004")]
    assert report.leak_path is not None
    assert not report.leak_path.reaches_input
    assert any("rank 27" in stop.reason for stop in report.leak_path.stopped)
    evidence = finding(report, "LA001", "0").confirmation
    assert evidence is not None
    assert evidence.status is Status.NOT_REPRODUCED
    assert evidence.rank == 27


def test_a_frozen_dense_layer_gives_its_input_by_its_output(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(30, 64), nn.LeakyReLU(0.1), nn.Linear(64, 5))
    for parameter in module[0].parameters():
        parameter.requires_grad = False
    evidence = finding(report_of(module, (1, 30), tmp_path), "LA004").confirmation
    assert evidence is not None
    assert (evidence.status, evidence.scope) == (Status.CONFIRMED, Scope.END_TO_END)
    assert evidence.mse is not None
    assert evidence.mse < 1e-10


def test_a_dead_layer_is_not_reproduced(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 16, 5, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 64, 10),
    )
    with torch.no_grad():
        module[2].bias.fill_(-100.0)
    report = report_of(module, (1, 3, 16, 16), tmp_path)
    evidence = finding(report, "LA004").confirmation
    assert evidence is not None
    assert evidence.status is Status.NOT_REPRODUCED
    assert "rank" in evidence.reason
