"""Modules handed over as objects: in any form of inputs, the same graph as the saved file's."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
# Before transformers is imported: a test that needs the network must fail, not wait.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from torch import nn

from leakaudit.errors import AuditError, UsageError
from leakaudit.frontends.aten import reader as pt2_model
from leakaudit.frontends.aten.module import load_module
from leakaudit.frontends.interface import LoadOptions
from leakaudit.operators import Conv
from leakaudit.sandbox.limits import Limits


class Mixed(nn.Module):
    """Tied, viewed, transposed, half-precision and frozen numbers, buffers, constants, a write."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.up, self.down = nn.Linear(64, 32, bias=False), nn.Linear(64, 32, bias=False)
        self.down.weight = self.up.weight
        storage = torch.randn(2, 32)
        self.first, self.second = nn.Parameter(storage[0]), nn.Parameter(storage[1])
        self.rearranged = nn.Parameter(torch.randn(5, 32).t())
        self.coarse = nn.Parameter(torch.randn(5, dtype=torch.bfloat16), requires_grad=False)
        self.unused = nn.Parameter(torch.empty(0, 3))
        self.register_buffer("mask", torch.rand(32) > 0.5)
        self.register_buffer("passing", torch.rand(32), persistent=False)

    def forward(self, x, scale=None):
        y = self.norm(self.conv(x)).relu().flatten(1)
        y = (self.up(y) + self.down(y)) * self.first + self.second
        y = y.masked_fill(self.mask, float("-inf")).exp() + self.passing
        y = y + torch.arange(32, dtype=torch.float32)
        y = y @ self.rearranged + self.coarse.float()
        return {"logits": y if scale is None else y * scale}


def saved(model, args, kwargs=None) -> bytes:
    model.eval()
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(model, args, kwargs, strict=False), buffer)
    return buffer.getvalue()


def assert_same(found, expected) -> None:
    assert found.nodes == expected.nodes
    assert (found.inputs, found.outputs) == (expected.inputs, expected.outputs)
    assert (found.tensors, found.parameters) == (expected.tensors, expected.parameters)
    for name in expected.parameters:
        ours, theirs = found.weights.load(name), expected.weights.load(name)
        assert ours.dtype == theirs.dtype
        assert ours.flags.c_contiguous
        assert ours.flags.writeable
        assert ours.shape == theirs.shape
        assert ours.tobytes() == theirs.tobytes()


def test_a_live_module_reads_like_its_saved_file():
    model, x = Mixed(), torch.zeros(1, 3, 6, 6)
    options = LoadOptions(frozen=("up.*", "nothing"))
    graph = load_module(model, x, options)
    expected = pt2_model.load_bytes(saved(model, (x,)), "saved", options)
    assert len(expected.parameters) > 10
    assert_same(graph, expected)
    assert (graph.name, graph.format) == ("Mixed", "module")
    assert graph.notes[:-1] == expected.notes
    assert load_module(model, x, options, "a name").name == "a name"


def test_every_form_of_inputs():
    model, x, scale = Mixed().eval(), torch.zeros(2, 3, 6, 6), torch.ones(2, 5)
    plain = load_module(model, x, LoadOptions())
    for inputs in ((x,), [x], {"x": x}, (2, 3, 6, 6)):
        assert_same(load_module(model, inputs, LoadOptions()), plain)
    two = load_module(model, (x, scale), LoadOptions())
    assert two.inputs == ("x", "scale")
    assert_same(load_module(model, {"x": x, "scale": scale}, LoadOptions()), two)
    assert load_module(model, x, LoadOptions(batch_size=7)).tensors["x"].shape == (7, 3, 6, 6)
    options = LoadOptions(input_shapes={"": (3, 3, 6, 6)})
    assert load_module(model, None, options).tensors["x"].shape == (3, 3, 6, 6)
    model.input_shape = (4, 3, 6, 6)
    assert load_module(model, None, LoadOptions()).tensors["x"].shape == (4, 3, 6, 6)
    model.example_inputs = {"x": x, "scale": scale}
    assert_same(load_module(model, None, LoadOptions()), two)


def test_the_module_stays_as_it_was_and_its_weights_are_not_copied():
    model = Mixed().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = load_module(model, torch.ones(1, 3, 6, 6), LoadOptions())
    assert model.training
    assert model.norm.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    with torch.no_grad():
        model.conv.weight.zero_()
    assert not graph.weights.load("conv.weight").any()
    graph.weights.load("conv.weight")[:] = 1
    assert not model.conv.weight.any()


@pytest.mark.parametrize("inputs", ["pixel_values", 3, (), np.zeros((1, 3, 6, 6)), {"x": None}])
def test_inputs_that_hold_no_tensor(inputs):
    with pytest.raises(UsageError, match="the inputs of Mixed hold no tensor"):
        load_module(Mixed(), inputs, LoadOptions())


@pytest.mark.parametrize(
    ("model", "inputs", "options", "reason"),
    [
        (Mixed(), None, LoadOptions(), "no input shape is known for x"),
        (Mixed(), {"y": torch.zeros(1, 3, 6, 6)}, LoadOptions(), "unexpected keyword"),
        (Mixed(), torch.zeros(1, 3, 2, 2), LoadOptions(), "torch.export failed"),
        (nn.Linear(4, 4), (1, 4), LoadOptions(limits=Limits(elements=9)), "number of elements"),
        (nn.Linear(4, 4), (1, 4), LoadOptions(limits=Limits(nodes=0)), "number of its nodes"),
    ],
)
def test_refusals(model, inputs, options, reason):
    with pytest.raises(AuditError, match=reason) as caught:
        load_module(model, inputs, options, "mine")
    assert caught.value.target == "mine"
    assert caught.value.remedy


def test_a_module_without_numbers_is_read_and_its_weights_are_missed_by_name():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 2))
    graph = load_module(model, (1, 4), LoadOptions())
    assert graph.parameters["0.weight"].shape == (2, 4)
    with pytest.raises(AuditError, match=r"'0\.weight': it has no numbers"):
        graph.weights.load("0.weight")


def test_hugging_face_models_as_their_authors_call_them():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
    )
    model, pixels = transformers.ViTForImageClassification(config), torch.zeros(1, 3, 16, 16)
    graph = load_module(model, {"pixel_values": pixels}, LoadOptions(batch_size=2))
    assert graph.inputs == ("pixel_values",)
    assert graph.tensors["pixel_values"].shape == (2, 3, 16, 16)
    assert any(isinstance(node.op, Conv) for node in graph.nodes)
    assert_same(
        load_module(model, {"pixel_values": pixels}, LoadOptions()),
        pt2_model.load_bytes(saved(model, (), {"pixel_values": pixels}), "saved", LoadOptions()),
    )
