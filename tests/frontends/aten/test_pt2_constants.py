"""What stays stored, what is computed while reading, and what is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pt2_apply import Apply, weights
from pt2_cases import IMAGE
from pt2_reading import assert_computes, export, read, unsupported

from leakaudit import operators as ops
from leakaudit.frontends.aten import reader as pt2_model
from leakaudit.frontends.interface import LoadOptions

nn = torch.nn
F = torch.nn.functional


class TestConstants:
    def test_a_mask_from_nothing_is_a_parameter_that_is_not_trained(self):
        def forward(x):
            mask = torch.full((4, 4), float("-inf")).triu(1)
            return F.softmax(x + mask, -1)

        model, x = Apply(forward), torch.randn(2, 4, 4)
        graph = read(model, (x,))
        assert_computes(graph, model, (x,))
        assert [type(node.op) for node in graph.nodes] == [ops.Add, ops.Softmax]
        (parameter,) = graph.parameters.values()
        assert not parameter.trainable
        expected = torch.full((4, 4), float("-inf")).triu(1).numpy()
        np.testing.assert_array_equal(graph.weights.load(parameter.name), expected)

    def test_what_is_written_into_a_constant_reaches_its_views_and_no_earlier_reader(self):
        def forward(x):
            table = torch.zeros(3, 4)
            column = table[:, 1]
            before = x + table
            table[0] = 2
            column.add_(torch.arange(3))
            table[1:, 2:] = torch.tensor([[5.0, 6.0], [7.0, 8.0]])
            return before, x * table, x[:, 0] + column

        model, x = Apply(forward), torch.randn(3, 4)
        assert_computes(read(model, (x,)), model, (x,))
        assert_computes(read(model, (x,), decompose=True), model, (x,))

    def test_position_encodings_under_no_grad(self):
        def forward(x, frequencies):
            with torch.no_grad():
                angles = torch.arange(5)[:, None].float() * frequencies
                table = torch.cat([angles.sin(), angles.cos()], -1)
            return x + table

        model, x = Apply(forward, frequencies=torch.rand(3)), torch.randn(2, 5, 6)
        graph = read(model, (x,))
        assert_computes(graph, model, (x,))
        assert [type(node.op) for node in graph.nodes] == [ops.Add]

    def test_a_slice_of_a_buffer_is_an_index(self):
        def forward(x, w, positions):
            return x + F.embedding(positions[:, :3], w)

        model = Apply(forward, w=weights(7, 4), positions=torch.arange(7)[None])
        x = torch.randn(2, 3, 4)
        graph = read(model, (x,))
        assert_computes(graph, model, (x,))
        embedding, _ = graph.nodes
        assert embedding.op == ops.Embedding()
        assert graph.weights.load(embedding.inputs[0]).tolist() == [[0, 1, 2]]

    def test_a_frozen_parameter_is_no_constant(self):
        """It stays readable under its own name, whether it sends a gradient or not."""
        model = Apply(lambda x, w: x + w[1:], w=weights(4, 5))
        data = export(model, (torch.randn(3, 5),))
        graph = pt2_model.load_bytes(data, "model.pt2", LoadOptions(frozen=("w",)))
        assert graph.nodes[0].inputs == ("w",)
        assert not graph.parameters["w"].trainable

    def test_constants_that_are_too_large_are_not_computed(self):
        model = Apply(lambda x: x + torch.zeros(2**13, 2**12)[0, 0])
        graph = read(model, (torch.randn(2, 2),))
        assert "aten.zeros.default" in unsupported(graph)[0]

    def test_integers_computed_from_data_are_refused(self):
        class Positions(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table = nn.Embedding(9, 4)

            def forward(self, ids):
                return self.table((ids != 1).int().cumsum(1))

        graph = read(Positions(), (torch.tensor([[3, 4, 1]]),))
        assert any("aten.cumsum.default" in reason for reason in unsupported(graph))
        assert graph.tensors[graph.inputs[0]].dtype == "int64"


class TestTraceability:
    """From every use of a trainable parameter there is a way back to its name."""

    def test_class_token_and_position_embedding(self):
        def forward(x, token, positions):
            return torch.cat([token.expand(x.shape[0], -1, -1), x], 1) + positions

        model = Apply(forward, token=weights(1, 1, 4), positions=weights(1, 4, 4))
        x = torch.randn(2, 3, 4)
        graph = read(model, (x,))
        assert_computes(graph, model, (x,))
        expand, concat, add = graph.nodes
        assert expand.inputs == ("token",)
        assert concat.inputs == (expand.outputs[0], graph.inputs[0])
        assert add.inputs == (concat.outputs[0], "positions")

    def test_a_rearranged_parameter_is_read_through_nodes(self):
        model = Apply(lambda x, w: x * w.view(2, 3).t()[None, 1:].permute(0, 2, 1), w=weights(6))
        x = torch.randn(4, 2, 2)
        graph = read(model, (x,))
        assert_computes(graph, model, (x,))
        assert [type(node.op) for node in graph.nodes][:2] == [ops.Reshape, ops.Transpose]
        assert graph.nodes[0].inputs == ("w",)
        assert graph.parameter_uses["w"] == 1

    def test_the_view_that_a_layer_takes_as_its_weight_leaves_no_node(self):
        model = Apply(lambda x, w: F.linear(x, w.t()), w=weights(4, 3))
        graph = read(model, (torch.randn(2, 4),))
        assert [type(node.op) for node in graph.nodes] == [ops.Linear]
        assert graph.parameter_uses["w"] == 1

    def test_a_layer_that_starts_from_a_parameter(self):
        model = Apply(lambda x, q, w: x + F.linear(q, w), q=weights(1, 3), w=weights(4, 3))
        x = torch.randn(2, 4)
        graph = read(model, (x,))
        assert_computes(graph, model, (x,))
        # What later stages look up as a layer's input is a tensor, not a parameter.
        linear = next(node for node in graph.nodes if isinstance(node.op, ops.Linear))
        assert linear.inputs[0] in graph.tensors


@pytest.mark.parametrize(
    ("function", "shapes", "reason"),
    [
        (lambda x: F.avg_pool2d(x, 2, divisor_override=3), [IMAGE], "divisor_override"),
        (lambda x: F.adaptive_max_pool2d(x, 5), [IMAGE], "unequal size"),
        (lambda x: F.max_pool2d(x, 2, return_indices=True), [IMAGE], "more than the first"),
        (lambda x: F.max_pool2d(x, 2), [(4, 9, 8)], "no batch axis"),
        (lambda x: F.softplus(x, 1, 5), [IMAGE], "threshold is below 20"),
        (lambda x: torch.div(x, 2, rounding_mode="floor"), [IMAGE], "rounds"),
        (lambda x: torch.where(x > 0, x, 0.0), [IMAGE], "aten.gt.Scalar"),
        (lambda x, i: x[:, i.long()], [IMAGE, (2,)], "it turns float32 data into int64"),
        (lambda x: x.int().float(), [IMAGE], "it turns float32 data into int32"),
        (lambda x: x[[0, 1], :, [0, 1]], [IMAGE], "apart from each other"),
        (lambda x: F.hardshrink(x), [IMAGE], "no rule"),
        (lambda x: x.norm(3, 1), [IMAGE], "3-norm"),
        (lambda x, y: torch.maximum(x, y), [IMAGE, IMAGE], "is computed, not constant"),
        (lambda x: F.interpolate(x, 4, mode="bilinear", antialias=True), [IMAGE], "_aa"),
        (lambda x: F.conv2d(x, x[:, :, :3, :3].mul(2)), [IMAGE], "weight is computed"),
        (lambda x: F.dropout(x, 0.5, training=True), [IMAGE], "model.eval()"),
        (lambda x, y, z: torch.einsum("ab,bc,cd->ad", x, y, z), [(2, 2)] * 3, "of 3 tensors"),
        (
            lambda q: F.scaled_dot_product_attention(q, q, q, dropout_p=0.5),
            [(2, 3, 4)],
            "model.eval()",
        ),
        (
            lambda q, m: F.scaled_dot_product_attention(q, q, q, m > 0),
            [(2, 3, 4), (3, 3)],
            "aten.gt.Scalar",
        ),
        (
            lambda q: F.scaled_dot_product_attention(q, q, q, torch.zeros(3, 3, dtype=torch.bool)),
            [(2, 3, 4)],
            "hides every key",
        ),
    ],
)
def test_refused_with_its_reason(function, shapes, reason):
    found = unsupported(read(Apply(function), [torch.randn(shape) for shape in shapes]))
    assert any(reason in text for text in found), found
