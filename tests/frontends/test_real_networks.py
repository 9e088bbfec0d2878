"""Networks that people use: read live and from an export archive, and run by our own execution."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
# Before transformers is imported: a test that needs the network must fail, not wait.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.importorskip("transformers")

import real_networks
from pt2_reading import read, unsupported

from leakaudit.execute import run
from leakaudit.frontends.aten import module, reader as pt2_model
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph
from leakaudit.operators import Conv

VISION = ("resnet", "convnext", "mobilenet_v2", "vit", "deit", "swin", "clip_vision")
TEXT = ("bert", "gpt2", "llama")
NETWORKS = (*VISION, *TEXT)
CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)


def outputs_of(model, inputs):
    """Every tensor that the model returns."""
    return [value for value in model(*inputs).values() if isinstance(value, torch.Tensor)]


def assert_is(graph: Graph, model, inputs) -> None:
    """The graph gives the outputs and the gradients of the model, each under its own name."""
    assert not unsupported(graph)
    count = sum(isinstance(part, CONVOLUTIONS) for part in model.modules())
    assert sum(isinstance(node.op, Conv) for node in graph.nodes) == count
    weights = {name: torch.from_numpy(graph.weights.load(name)) for name in graph.parameters}
    trained = {name: weights[name] for name, p in graph.parameters.items() if p.trainable}
    for tensor in trained.values():
        tensor.requires_grad_()
    values = run(graph, weights, dict(zip(graph.inputs, inputs, strict=True)))
    found = [values[name] for name in graph.outputs]
    expected = outputs_of(model, inputs)
    assert len(found) == len(expected)
    for result, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(result, truth, rtol=1e-4, atol=1e-5)

    sum(result.square().sum() for result in found).backward()
    model.zero_grad()
    sum(result.square().sum() for result in expected).backward()
    own = dict(model.named_parameters())
    assert trained.keys() == own.keys()
    for name, tensor in trained.items():
        truth = own[name].grad
        # A parameter that no node reads is one that gets no gradient, and the other way round.
        assert (graph.parameter_uses[name] == 0) == (truth is None), name
        if truth is not None:
            torch.testing.assert_close(tensor.grad, truth, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_live_module(name):
    graph = module.load(f"{real_networks.__file__}:{name}", LoadOptions())
    model, inputs = getattr(real_networks, name)()
    assert_is(graph, model, inputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_export_archive(name, tmp_path: Path):
    model, inputs = getattr(real_networks, name)()
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(model, inputs, strict=False), path)
    assert_is(pt2_model.load(str(path), LoadOptions()), model, inputs)


@pytest.mark.parametrize("name", ["vit", "bert"])
def test_decomposed_program(name):
    """Decomposed attention is matrix products and a softmax guarded against hidden rows."""
    model, inputs = getattr(real_networks, name)()
    assert_is(read(model, inputs, decompose=True), model, inputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("vit", "bert")])
def test_decomposed_program_of_the_others(name):
    test_decomposed_program(name)


def test_integer_inputs_stay_integers():
    graph = module.load(f"{real_networks.__file__}:bert", LoadOptions())
    assert [(graph.tensors[n].shape, graph.tensors[n].dtype) for n in graph.inputs] == [
        ((1, 9), "int64")
    ]
    longer = LoadOptions(input_shapes={"input_ids": (2, 12)})
    graph = module.load(f"{real_networks.__file__}:bert", longer)
    assert graph.tensors[graph.inputs[0]].shape == (2, 12)
    assert graph.tensors[graph.inputs[0]].dtype == "int64"
    assert not unsupported(graph)


@pytest.mark.parametrize("name", ["vit", "bert"])
def test_sizes_left_open(name):
    """Batch and length decide the class token's copies, the masks and the position indices."""
    model, (example,) = getattr(real_networks, name)()
    x = torch.cat([example, example])
    argument = "input_ids" if name == "bert" else "pixel_values"
    dynamic = {0: torch.export.Dim("batch")}
    if name == "bert":
        dynamic[1] = torch.export.Dim.DYNAMIC
    exported = torch.export.export(
        model, (), {argument: x}, dynamic_shapes={argument: dynamic}, strict=False
    )
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    for batch in (1, 3):
        other = example[:, :7] if name == "bert" else example
        other = torch.cat([other] * batch)
        options = LoadOptions(input_shapes={"": tuple(other.shape)})
        graph = pt2_model.load_bytes(buffer.getvalue(), "model.pt2", options)
        assert_is(graph, model, (other,))


def test_position_indices_counted_from_the_input_are_named():
    """RoBERTa counts the tokens that are not padding: what that gives depends on the data."""
    model, inputs = real_networks.roberta()
    kinds = {reason.partition(":")[0] for reason in unsupported(read(model, inputs))}
    assert kinds == {
        *("aten.ne.Scalar", "aten.cumsum.default", "aten.gather.default"),
        *("aten.to.dtype", "aten.type_as.default", "aten.add.Tensor", "aten.mul.Tensor"),
    }
