"""Shapes of an export archive: fixed, open, computed, and refused."""

from __future__ import annotations

import pytest
from pt2_exporting import read

from leakaudit.errors import AuditError
from leakaudit.frontends.aten import shapes as pt2_shapes
from leakaudit.frontends.aten.schema import FormatError
from leakaudit.frontends.interface import LoadOptions
from leakaudit.operators import Reshape

torch = pytest.importorskip("torch")
nn = torch.nn
F = torch.nn.functional


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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
