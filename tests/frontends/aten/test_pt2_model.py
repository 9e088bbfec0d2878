"""Export archives against torch itself: numbers and meaning of every tensor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pt2_exporting import Everything, archive, assert_same_function, read

from leakaudit.operators import (
    ArcTan,
    Conv,
    Elu,
    Linear,
    PRelu,
    Relu,
    Sigmoid,
    Transpose,
    Unsupported,
)

torch = pytest.importorskip("torch")
nn = torch.nn
F = torch.nn.functional


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class TestMeaning:
    def test_every_operator_computes_what_torch_computes(self):
        graph = assert_same_function(Everything(), torch.randn(2, 4, 9, 8))
        assert not [node for node in graph.nodes if isinstance(node.op, Unsupported)]
        assert {type(node.op) for node in graph.nodes} >= {Conv, Linear, PRelu, Elu, Transpose}

    def test_every_shape_is_the_one_torch_computes(self):
        model, x = Everything().eval(), torch.randn(2, 4, 9, 8)
        program = torch.export.export(model, (x,))
        shapes: dict[str, tuple[int, ...]] = {}

        class Recorder(torch.fx.Interpreter):
            def run_node(self, n):
                result = super().run_node(n)
                if isinstance(result, torch.Tensor):
                    shapes[n.name] = tuple(result.shape)
                return result

        flat = [
            program.state_dict.get(spec.target, x) for spec in program.graph_signature.input_specs
        ]
        Recorder(program.graph_module).run(*flat)
        graph = read(model, (x,))
        assert len(graph.tensors) == len(graph.nodes) + 1
        assert {name: tensor.shape for name, tensor in graph.tensors.items()} == {
            name: shapes[name] for name in graph.tensors
        }

    @pytest.mark.parametrize("axes", [1, 2, 3])
    def test_same_padding_of_an_even_kernel_is_asymmetric(self, axes):
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes](2, 3, 4, padding="same")
        graph = assert_same_function(nn.Sequential(conv), torch.randn(1, 2, *[6] * axes))
        (node,) = graph.nodes
        assert node.op.padding_begin == (1,) * axes
        assert node.op.padding_end == (2,) * axes

    def test_decomposed_graph_reads_the_weight_through_its_transposed_view(self):
        model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(9, 5))
        graph = assert_same_function(model, torch.randn(2, 2, 4), decompose=True)
        assert [node.origin for node in graph.nodes][-1] == "aten.addmm.default"
        assert graph.nodes[-1].op == Linear(9, 5)
        assert [node.name for node in graph.nodes if node.parameters] == ["0", "3"]

    @pytest.mark.parametrize(
        ("forward", "transposed"),
        [
            (lambda x, w: x @ w, True),
            (lambda x, w: torch.mm(x, w.t().contiguous().t()), True),
            (lambda x, w: F.linear(x, w), False),
            (lambda x, w: F.linear(x, w.transpose(0, 1)), True),
            (lambda x, w: x @ w.permute(1, 0), False),
        ],
    )
    def test_matrix_products(self, forward, transposed):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.randn(4, 4))

            def forward(self, x):
                return forward(x, self.weight)

        graph = assert_same_function(Model(), torch.randn(4, 4))
        assert graph.nodes[-1].op == Linear(4, 4, transposed=transposed)

    def test_addmm_keeps_its_factors(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight, self.bias = (
                    nn.Parameter(torch.randn(3, 5)),
                    nn.Parameter(torch.randn(5)),
                )

            def forward(self, x):
                return torch.addmm(self.bias, x, self.weight, beta=2, alpha=0.5)

        graph = assert_same_function(Model(), torch.randn(2, 3))
        assert graph.nodes[0].op == Linear(3, 5, transposed=True, alpha=0.5, beta=2.0)

    @pytest.mark.parametrize(
        ("layer", "reason"),
        [
            (nn.Softplus(threshold=5), "threshold is below 20"),
            (nn.Hardshrink(), "no rule"),
            (nn.AvgPool2d(2, divisor_override=3), "divisor_override"),
        ],
    )
    def test_what_is_not_understood_keeps_the_graph_connected(self, layer, reason):
        graph = read(nn.Sequential(layer, nn.ReLU()), (torch.randn(1, 3, 4, 4),))
        first, last = graph.nodes
        assert isinstance(first.op, Unsupported)
        assert reason in first.op.reason
        assert first.inputs == graph.inputs
        assert first.outputs == last.inputs

    def test_active_dropout_is_refused(self):
        graph = read(nn.Sequential(nn.Dropout(0.5)), (torch.randn(1, 4),), training=True)
        assert "model.eval()" in graph.nodes[0].op.reason

    def test_detach_is_refused(self):
        class Model(nn.Module):
            def forward(self, x):
                return x.detach().relu()

        graph = read(Model(), (torch.randn(1, 4),))
        assert "cuts the gradient" in graph.nodes[0].op.reason

    def test_subgraph_is_refused(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.dense = nn.Linear(4, 4)

            def forward(self, x):
                y = self.dense(x)
                with torch.no_grad():
                    scale = y * 2
                return scale.relu()

        graph = read(Model(), (torch.randn(1, 4),))
        assert [type(node.op) for node in graph.nodes] == [Linear, Unsupported, Relu]
        assert graph.nodes[1].inputs == graph.nodes[0].outputs


class TestInPlace:
    def test_a_later_reader_sees_what_was_written(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.dense = nn.Linear(4, 4)

            def forward(self, x):
                y = self.dense(x)
                y.relu_()
                return torch.sigmoid(y)

        graph = assert_same_function(Model(), torch.randn(3, 4))
        assert [type(node.op) for node in graph.nodes] == [Linear, Relu, Sigmoid]

    def test_writing_through_a_view_reaches_the_readers_of_the_whole(self):
        class Model(nn.Module):
            def forward(self, x):
                y = torch.sigmoid(x)
                y.view(-1).tanh_()
                return torch.atan(y)

        graph = read(Model(), (torch.randn(2, 4),))
        written = graph.producers[graph.nodes[-1].inputs[0]]
        assert isinstance(graph.nodes[-1].op, ArcTan)
        assert isinstance(written.op, Unsupported)
        assert "shares" in written.op.reason
        assert graph.tensors[graph.nodes[-1].inputs[0]].shape == (2, 4)

    def test_writing_a_slice_is_not_lost(self):
        class Model(nn.Module):
            def forward(self, x):
                y = torch.sigmoid(x)
                y[:, 0] = 0
                return torch.atan(y)

        graph = read(Model(), (torch.randn(2, 4),))
        assert isinstance(graph.producers[graph.nodes[-1].inputs[0]].op, Unsupported)


def test_reading_and_loading_weights_needs_no_torch(tmp_path: Path):
    path = tmp_path / "model.pt2"
    path.write_bytes(archive(Everything(), (torch.randn(1, 4, 9, 8),)))
    code = (
        "import sys\n"
        "from leakaudit.frontends.aten import reader as pt2_model\n"
        "from leakaudit.frontends.interface import LoadOptions\n"
        f"graph = pt2_model.load({str(path)!r}, LoadOptions())\n"
        "print(graph.format, graph.weights.load('dense.weight').shape, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "pt2 (7, 80) False"
