"""Export archives against torch itself: shapes, numbers and meaning of every tensor."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from leakaudit.errors import AuditError
from leakaudit.frontends import pt2_model, pt2_shapes
from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.pt2_schema import FormatError
from leakaudit.graph import Graph
from leakaudit.graph.operators import (
    ArcTan,
    Conv,
    Elu,
    Identity,
    LeakyRelu,
    Linear,
    PRelu,
    Relu,
    Reshape,
    Sigmoid,
    Softplus,
    Tanh,
    Transpose,
    Unsupported,
)

torch = pytest.importorskip("torch")
nn = torch.nn
F = torch.nn.functional


def read(model, args, options=None, dynamic_shapes=None, decompose=False, training=False) -> Graph:
    """Export, save and read back without touching a disk."""
    return pt2_model.load_bytes(
        archive(model, args, dynamic_shapes, decompose, training),
        "model.pt2",
        options or LoadOptions(),
    )


def archive(model, args, dynamic_shapes=None, decompose=False, training=False) -> bytes:
    model.train(training)
    program = torch.export.export(model, args, dynamic_shapes=dynamic_shapes)
    if decompose:
        program = program.run_decompositions()
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def run(graph: Graph, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Compute the graph from its operators alone, checking every stated shape and dtype."""
    values = dict(inputs)
    for node in graph.nodes:
        weights = {
            role: torch.from_numpy(graph.weights.load(name)) for role, name in node.parameters
        }
        (x,) = (values[name] for name in node.inputs)
        result = apply(node.op, x, weights, graph.tensors[node.outputs[0]].shape)
        (output,) = node.outputs
        assert tuple(result.shape) == graph.tensors[output].shape
        assert str(result.dtype) == f"torch.{graph.tensors[output].dtype}"
        values[output] = result
    return values


def apply(op, x, weights, shape):
    match op:
        case Conv():
            pads = [
                p
                for pair in zip(op.padding_begin[::-1], op.padding_end[::-1], strict=True)
                for p in pair
            ]
            function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(op.kernel)]
            return function(
                F.pad(x, pads),
                weights["weight"],
                weights.get("bias"),
                stride=op.stride,
                dilation=op.dilation,
                groups=op.groups,
            )
        case Linear():
            weight = weights["weight"] if op.transposed else weights["weight"].T
            assert tuple(weight.shape) == (op.in_features, op.out_features)
            bias = op.beta * weights["bias"] if "bias" in weights else 0
            return op.alpha * (x @ weight) + bias
        case PRelu():
            return F.prelu(x, weights["slope"])
        case LeakyRelu():
            return F.leaky_relu(x, op.slope)
        case Elu():
            return F.elu(x, op.alpha)
        case Reshape():
            return x.reshape(shape)
        case Transpose():
            return x.permute(op.permutation)
        case Identity():
            return x
    functions = {
        Relu: torch.relu,
        Sigmoid: torch.sigmoid,
        Tanh: torch.tanh,
        ArcTan: torch.atan,
        Softplus: F.softplus,
    }
    return functions[type(op)](x)


def assert_same_function(model, x, **kwargs) -> Graph:
    """The graph, computed from its operators, gives what the module gives."""
    graph = read(model, (x,), **kwargs)
    name, (output,) = graph.inputs[0], graph.outputs
    with torch.no_grad():
        expected = model.eval()(x)
        torch.testing.assert_close(run(graph, {name: x})[output], expected)
    return graph


class Everything(nn.Module):
    """One of each understood layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(1, 2), groups=2)
        self.slopes = nn.PReLU(6, init=0.1)
        self.second = nn.Conv2d(6, 8, (2, 3), stride=(2, 1), padding=(1, 0), bias=False)
        self.third = nn.Conv2d(8, 4, 2, padding="valid")
        self.drop = nn.Dropout(0.5)
        self.dense = nn.Linear(4 * 4 * 5, 7)
        self.plain = nn.Linear(7, 3, bias=False)

    def forward(self, x):
        x = self.slopes(self.first(x))
        x = F.leaky_relu(F.elu(self.second(x), 0.7), 0.3)
        x = torch.atan(torch.tanh(self.drop(self.third(x))))
        x = torch.sigmoid(self.dense(x.permute(0, 2, 3, 1).transpose(1, -1).flatten(1)))
        return F.softplus(torch.relu(self.plain(x).unsqueeze(0).squeeze(0)))


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


class TestParameters:
    def test_names_shapes_and_numbers_are_those_of_the_state_dict(self):
        model = Everything()
        graph = read(model, (torch.randn(1, 4, 9, 8),))
        state = model.state_dict()
        assert list(graph.parameters) == list(state)
        for name, tensor in state.items():
            loaded = graph.weights.load(name)
            assert graph.parameters[name].shape == loaded.shape
            np.testing.assert_array_equal(loaded, tensor.numpy())

    def test_frozen_parameters_and_buffers_are_not_trainable(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
        model[0].bias.requires_grad_(False)
        graph = read(model, (torch.randn(2, 4),), LoadOptions(frozen=("2.*",)))
        assert {name for name, p in graph.parameters.items() if p.trainable} == {
            "0.weight",
            "1.weight",
            "1.bias",
        }
        assert graph.parameters["1.num_batches_tracked"].dtype == "int64"

    def test_tied_parameter_is_one_parameter_used_twice(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        model[2].weight = model[0].weight
        graph = assert_same_function(model, torch.randn(1, 4))
        assert graph.parameter_uses["0.weight"] == 2
        assert "2.weight" not in graph.parameters
        assert [node.name for node in graph.nodes] == ["0", "relu", "0#2"]
        frozen = read(model, (torch.randn(1, 4),), LoadOptions(frozen=("2.weight",)))
        assert not frozen.parameters["0.weight"].trainable

    def test_strided_views_into_one_storage(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                storage = torch.randn(6, 8)
                self.a = nn.Parameter(storage.t()[1::2])
                self.b = nn.Parameter(storage[2:, 3:7])

            def forward(self, x):
                return F.linear(F.linear(x, self.a), self.b)

        model = Model()
        graph = assert_same_function(model, torch.randn(1, 6))
        np.testing.assert_array_equal(graph.weights.load("a"), model.a.detach().numpy())
        np.testing.assert_array_equal(graph.weights.load("b"), model.b.detach().numpy())

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
    def test_other_precisions(self, dtype):
        kind = getattr(torch, dtype)
        model = nn.Sequential(nn.Linear(4, 4)).to(kind)
        graph = read(model, (torch.randn(1, 4, dtype=kind),))
        loaded = graph.weights.load("0.weight")
        assert graph.parameters["0.weight"].dtype == loaded.dtype.name == dtype
        assert graph.tensors["linear"].dtype == dtype
        np.testing.assert_array_equal(
            loaded.astype("float64"), model[0].weight.detach().double().numpy()
        )

    def test_constants_and_buffers_that_are_not_in_the_state_dict(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("hidden", torch.arange(4.0), persistent=False)
                self.plain = torch.ones(4)

            def forward(self, x):
                return (x + self.hidden) * self.plain + torch.tensor([1.0, 2.0, 3.0, 4.0])

        graph = read(Model(), (torch.randn(1, 4),))
        assert graph.weights.load("hidden").tolist() == [0, 1, 2, 3]
        assert graph.weights.load("plain").tolist() == [1] * 4
        assert graph.weights.load("lifted_tensor_0").tolist() == [1, 2, 3, 4]
        assert not any(parameter.trainable for parameter in graph.parameters.values())

    def test_meta_weights_have_shapes_and_no_numbers(self):
        with torch.device("meta"):
            model = nn.Sequential(nn.Linear(4, 4))
            data = archive(model, (torch.empty(1, 4),))
        graph = pt2_model.load_bytes(data, "model.pt2", LoadOptions())
        assert graph.nodes[0].op == Linear(4, 4)
        with pytest.raises(AuditError, match="without numbers"):
            graph.weights.load("0.weight")


class TestShapes:
    batch = ({0: torch.export.Dim("batch")},)

    def test_open_batch_is_one_or_what_was_asked(self):
        model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), (torch.randn(2, 3, 6, 6),)
        graph = read(model, x, dynamic_shapes=self.batch)
        assert graph.tensors["flatten"].shape == (1, 64)
        graph = read(model, x, LoadOptions(batch_size=5), dynamic_shapes=self.batch)
        assert graph.tensors[graph.inputs[0]].shape == (5, 3, 6, 6)
        assert graph.tensors["flatten"].shape == (5, 64)

    def test_fixed_batch_cannot_be_changed(self):
        model, x = nn.Sequential(nn.Linear(4, 4)), (torch.randn(2, 4),)
        assert read(model, x, LoadOptions(batch_size=2)).tensors["linear"].shape == (2, 4)
        with pytest.raises(AuditError, match="dynamic batch dimension"):
            read(model, x, LoadOptions(batch_size=3))

    def test_open_image_size_must_be_given(self):
        model, x = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2)), (torch.randn(2, 3, 17, 19),)
        dynamic = torch.export.Dim.DYNAMIC
        shapes = ({0: dynamic, 2: dynamic, 3: dynamic},)
        with pytest.raises(AuditError, match=r"axis 2, 3 .*--input-shape 1,3,17,19") as error:
            read(model, x, dynamic_shapes=shapes)
        assert "\n" not in str(error.value)
        options = LoadOptions(input_shapes={"": (7, 3, 32, 21)})
        graph = read(model, x, options, dynamic_shapes=shapes)
        with torch.no_grad():
            expected = tuple(model(torch.randn(7, 3, 32, 21)).shape)
        assert graph.tensors["conv2d"].shape == expected
        with pytest.raises(AuditError, match="has no input 'y'"):
            read(model, x, LoadOptions(input_shapes={"y": (1, 3, 8, 8)}), dynamic_shapes=shapes)
        with pytest.raises(AuditError, match="fixes axis 1"):
            read(model, x, LoadOptions(input_shapes={"": (1, 4, 8, 8)}), dynamic_shapes=shapes)
        with pytest.raises(AuditError, match="4 axes"):
            read(model, x, LoadOptions(input_shapes={"": (1, 4)}), dynamic_shapes=shapes)

    def test_view_by_a_computed_size(self):
        class Model(nn.Module):
            def forward(self, x):
                return x.view(x.shape[0] * 2, -1)

        graph = read(
            Model(),
            (torch.randn(2, 6),),
            LoadOptions(batch_size=3),
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        )
        assert [(type(n.op), graph.tensors[n.outputs[0]].shape) for n in graph.nodes] == [
            (Reshape, (6, 3))
        ]

    def test_two_inputs_with_one_batch(self):
        class Model(nn.Module):
            def forward(self, left, right):
                return left.relu(), right.sigmoid()

        dim = torch.export.Dim("batch")
        graph = read(
            Model(),
            (torch.randn(2, 3), torch.randn(2, 4)),
            LoadOptions(batch_size=6),
            dynamic_shapes=({0: dim}, {0: dim}),
        )
        assert graph.inputs == ("left", "right")
        assert [graph.tensors[name].shape for name in graph.outputs] == [(6, 3), (6, 4)]

    def test_data_dependent_shape_is_refused(self):
        class Model(nn.Module):
            def forward(self, x):
                return torch.nonzero(x)

        with pytest.raises(AuditError, match="depends on the data"):
            read(Model(), (torch.randn(2, 3),))

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("2*s77", 14),
            ("s77*(s5//2)", 14),
            ("Max(1, s77 - 9)", 1),
            ("-s5 + s77 % 4", -2),
            (
                "Add(FloorDiv(Add(Symbol('s77', x=True), Integer(-3)), Integer(2)), Integer(1))",
                3,
            ),
            ("Mul(Rational(1, 2), Pow(Add(Symbol('s5'), Integer(-1)), Integer(2)))", 8),
            ("CeilToInt(IntTrueDiv(s77, 2))", 4),
            ("ModularIndexing(s77, 2, 2)", 1),
        ],
    )
    def test_expressions(self, text, value):
        assert pt2_shapes.evaluate(text, {"s77": 7, "s5": 5}) == value

    @pytest.mark.parametrize(
        "text",
        [
            "__import__('os').system('true')",
            "s77.__class__",
            "[1][0]",
            "1 if s77 else 2",
            "(lambda: 1)()",
            "9**9**9",
            "1/0",
            "s77/2",
            "True",
            "1.5",
            "(" * 5000,
            "-" * 15_000 + "1",
            "FloorDiv(1)",
            "1 +",
            "x" * 30_000,
        ],
    )
    def test_nothing_else_is_evaluated(self, text):
        with pytest.raises(FormatError):
            pt2_shapes.evaluate(text, {"s77": 7})


def test_reading_and_loading_weights_needs_no_torch(tmp_path: Path):
    path = tmp_path / "model.pt2"
    path.write_bytes(archive(Everything(), (torch.randn(1, 4, 9, 8),)))
    code = (
        "import sys\n"
        "from leakaudit.frontends import pt2_model\n"
        "from leakaudit.frontends.interface import LoadOptions\n"
        f"graph = pt2_model.load({str(path)!r}, LoadOptions())\n"
        "print(graph.format, graph.weights.load('dense.weight').shape, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "pt2 (7, 80) False"
