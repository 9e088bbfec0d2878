"""What an export archive stores: weights, buffers, constants, and which of them are trained."""

from __future__ import annotations

import numpy as np
import pytest
from pt2_exporting import Everything, archive, assert_same_function, read

from leakaudit.errors import AuditError
from leakaudit.frontends.aten import reader as pt2_model
from leakaudit.frontends.interface import LoadOptions
from leakaudit.operators import Linear

torch = pytest.importorskip("torch")
nn = torch.nn
F = torch.nn.functional


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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

    def test_a_module_called_like_an_operator_keeps_its_name(self):
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.expand = nn.Linear(3, 6)

            def forward(self, x):
                return self.expand(x.expand(4, 3))

        graph = read(Block(), (torch.randn(1, 3),))
        names = {type(node.op).__name__: node.name for node in graph.nodes}
        assert names["Linear"] == "expand"
        assert names["Expand"] == "expand#2"

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
