"""What is confirmed where no path runs from end to end, and what averaging takes away."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from leakaudit.confirm.confirm import ConfirmOptions, confirm
from leakaudit.findings import Finding, ModelReport, Scope, Severity, Status
from leakaudit.frontends import registry
from leakaudit.frontends.interface import LoadOptions
from leakaudit.leakpath.path import find_leak_path
from leakaudit.pipeline.audit import AuditOptions, audit
from leakaudit.rules.registry import load_rules


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


def two_dense_layers(shared_bias: bool) -> nn.Sequential:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(20, 30), nn.GELU(), nn.Linear(30, 30), nn.GELU(), nn.Linear(30, 3, bias=False)
    )
    if shared_bias:
        module[2].bias = module[0].bias
    return module


def test_the_gradient_of_a_shared_bias_divides_into_no_input(tmp_path: Path) -> None:
    module = two_dense_layers(shared_bias=True)
    module(torch.rand(1, 20)).square().sum().backward()
    bias, weight = module[0].bias, module[0].weight
    assert bias is not None
    assert bias.grad is not None
    assert weight.grad is not None
    rows = weight.grad / bias.grad[:, None]
    assert float((rows - rows[0]).abs().max()) > 0.1, "rows of one input would be equal"

    report = report_of(module, (1, 20), tmp_path)
    assert not [f for f in report.findings if f.rule == "LA003"]
    assert "the bias is shared" in report.layers[0].note
    first = finding(report, "LA011", "0")
    assert first.severity is Severity.HIGH
    assert "up to one unknown factor" in first.downgraded_because
    assert first.confirmation is not None
    assert "up to one factor" in first.confirmation.reason
    own = report_of(two_dense_layers(shared_bias=False), (1, 20), tmp_path)
    assert {f.layer for f in own.findings if f.rule == "LA003"} == {"0", "2"}
    assert finding(own, "LA011", "0").severity is Severity.CRITICAL


class Adapted(nn.Module):
    """A frozen layer with a low-rank adapter beside it, which has no bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen = nn.Linear(20, 30).requires_grad_(False)
        self.down = nn.Linear(20, 4, bias=False)
        self.up = nn.Linear(4, 30, bias=False)
        self.head = nn.Linear(30, 3).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.frozen(x) + self.up(self.down(x))))


def test_a_record_known_up_to_a_factor_is_judged_up_to_it(tmp_path: Path) -> None:
    report = report_of(Adapted(), (1, 20), tmp_path)
    # The frozen layer reads the record too, and sends nothing.
    assert {f.layer for f in report.findings if f.rule == "LA011"} == {"down"}
    first = finding(report, "LA011", "down")
    assert first.severity is Severity.HIGH
    model = finding(report, "LA005")
    assert "x (20 numbers) can be computed back" in model.message
    assert "up to one unknown factor" in model.message
    for found in (first, model):
        evidence = found.confirmation
        assert evidence is not None
        assert (evidence.status, evidence.scope) == (Status.CONFIRMED, Scope.END_TO_END)
        assert evidence.mse is not None
        assert evidence.mse < 1e-10
        assert "up to one factor" in evidence.reason
        assert "fitted to the true value" in evidence.reason
        assert evidence.solver == "row space of the weight gradient"


@pytest.mark.parametrize("seed", [0, 1])
def test_a_picture_known_up_to_a_factor_is_shown_with_it(seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    head = nn.Linear(30, 3).requires_grad_(False)
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 30, bias=False), nn.GELU(), head)
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(module.eval(), (torch.zeros(1, 3, 8, 8),)), path)
    graph = registry.load(str(path), LoadOptions())
    options = ConfirmOptions(seed=seed)
    result = confirm(graph, find_leak_path(graph, options.loss), [], options)
    assert result.model.status is Status.CONFIRMED
    assert "up to one factor" in result.model.reason
    assert result.model.psnr is not None
    assert result.model.psnr > 60
    assert result.original is not None
    assert result.reconstruction is not None
    assert torch.allclose(result.reconstruction, result.original, atol=1e-5)
