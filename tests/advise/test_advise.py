"""Advice: the changes remove the flag, are the smallest, and say what the network would be."""

from __future__ import annotations

import json
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from advise_support import CHAINS, FLAGGED, advice_for, change_of, layer_advice, load, run
from places import SAMPLES
from samples import networks
from torch import nn

from leakaudit.advice import ResampledWeights, advise
from leakaudit.advice.change import Change
from leakaudit.advice.propagate import RefusedChange
from leakaudit.advice.rebuild import rebuild
from leakaudit.counting.bound import layer_bound
from leakaudit.counting.count import count, verdict
from leakaudit.counting.geometry import Axis, ConvolutionGeometry
from leakaudit.findings import Verdict
from leakaudit.frontends import registry
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph
from leakaudit.operators import Conv

JSON = ("--format", "json")


@pytest.mark.parametrize("name", FLAGGED)
def test_every_flagged_layer_gets_a_change_that_unflags_it(name: str) -> None:
    graph = load(name)
    flagged = [
        node.name
        for node in graph.nodes
        if node.parameter("weight") and verdict(count(graph, node)) is Verdict.FLAGGED
    ]
    assert flagged
    advised = {entry.layer: entry for entry in advice_for(name).layers}
    assert set(flagged) <= advised.keys()
    for layer, entry in advised.items():
        best = entry.candidates[0]
        counts = count(best.graph, best.graph.node(layer))
        assert verdict(counts) is Verdict.UNDERDETERMINED, layer
        assert counts.rank_bound < counts.unknowns - counts.unread
        assert counts.determined_fraction == best.determined_fraction < 1


@pytest.mark.parametrize("name", ["lenet_main", "lenet", "cnn6", "cnn6_o", "lenet_allrelu"])
def test_every_change_of_a_layer_on_the_only_path_closes_it(name: str) -> None:
    for entry in advice_for(name).layers:
        for candidate in entry.candidates:
            assert candidate.closes_path
            assert not candidate.path.report.reaches_input
            assert candidate.stops


def test_the_mlps_input_is_still_recovered_where_only_the_head_is_frozen() -> None:
    candidate = change_of("tabular_mlp", "fc2", "freezing")
    assert candidate.reaches_input
    assert not candidate.closes_path


def geometry(graph: Graph, layer: str, filters: int) -> ConvolutionGeometry:
    """Put together from the file's numbers, not by the code under test."""
    node = graph.node(layer)
    op = node.op
    assert isinstance(op, Conv)
    shape = graph.tensors[node.inputs[0]].shape
    axes = [
        Axis(shape[2 + i], op.kernel[i], op.stride[i], op.padding_begin[i], op.padding_end[i])
        for i in range(2)
    ]
    return ConvolutionGeometry(shape[1], filters, (Axis(shape[0]), *axes), op.groups)


@pytest.mark.parametrize("name", FLAGGED)
def test_one_filter_more_is_still_flagged(name: str) -> None:
    graph = load(name)
    for entry in advice_for(name).layers:
        for candidate in entry.candidates:
            if candidate.change.parameter != "filters":
                continue
            fewest = candidate.change.filters
            assert fewest is not None
            weight = graph.parameters[graph.node(entry.layer).parameter("weight") or ""]
            for more in range(fewest + 1, weight.shape[0] + 1):
                bound = layer_bound(geometry(graph, entry.layer, more))
                assert bound.rank == bound.read, (entry.layer, more)
            bound = layer_bound(geometry(graph, entry.layer, fewest))
            assert bound.rank < bound.read


def test_the_changes_are_ranked() -> None:
    for entry in advice_for("lenet_main").layers:
        ranks = [(c.reaches_input, c.still_flagged, c.relative_change) for c in entry.candidates]
        assert ranks == sorted(ranks)


def changed_module(name: str, layer: str, change: Change) -> dict[str, tuple[nn.Module, Any]]:
    """The network that PyTorch builds with this change: per layer the module and its output."""
    x = torch.zeros(getattr(networks, name)().input_shape)
    built: dict[str, tuple[nn.Module, Any]] = {}
    for child, module in getattr(networks, name)().named_children():
        mine = child == layer
        if mine and change.pool:
            # In front of the flattening that the dense layer reads.
            flattened = built.pop("flatten")[0]
            before = list(built.values())[-1][1]
            x = nn.AvgPool2d(change.pool)(before)
            built[f"{layer}.pool"] = (nn.AvgPool2d(change.pool), x)
            x = flattened(x)
            built["flatten"] = (flattened, x)
        if isinstance(module, nn.Conv2d):
            filters = (change.filters if mine else None) or module.out_channels
            op = change.op if mine else None
            kernel = op.kernel if op else module.kernel_size
            begin = op.padding_begin if op else module.padding
            end = op.padding_end if op else module.padding
            padded = nn.functional.pad(x, (begin[1], end[1], begin[0], end[0]))
            module = nn.Conv2d(
                x.shape[1],
                filters,
                kernel,
                op.stride if op else module.stride,
                groups=op.groups if op else module.groups,
                bias=module.bias is not None,
            )
            x = module(padded)
        elif isinstance(module, nn.Linear):
            outputs = (change.filters if mine else None) or module.out_features
            bias = module.bias is not None and not (mine and change.drop_bias)
            module = nn.Linear(x.shape[1], outputs, bias=bias)
            x = module(x)
        else:
            x = module(x)
        built[child] = (module, x)
    return built


@pytest.mark.parametrize("name", CHAINS)
def test_shapes_are_those_of_pytorchs_network_with_that_change(name: str) -> None:
    for entry in advice_for(name).layers:
        for candidate in entry.candidates:
            expected = changed_module(name, entry.layer, candidate.change)
            graph = candidate.graph
            assert [node.name for node in graph.nodes] == list(expected)
            total = 0
            for node in graph.nodes:
                module, output = expected[node.name]
                assert graph.tensors[node.outputs[0]].shape == tuple(output.shape)
                for role, value in module.named_parameters():
                    assert graph.parameters[node.parameter(role) or ""].shape == value.shape
                    total += value.numel()
            assert candidate.parameters[1] == total


def test_leaving_the_bias_out_alone_does_not_help_below_cross_entropy() -> None:
    for name in ("tabular_mlp", "lenet_main"):
        entry = layer_advice(name, "fc1")
        assert "bias" in dict(entry.without)
        assert "bias" not in {c.change.parameter for c in entry.candidates}


def test_an_input_known_up_to_one_scale_is_no_success() -> None:
    # Without bias and below a squared error dW = g xT leaves one factor of the input open.
    entry = next(e for e in advise(load("tabular_mlp"), "mse").layers if e.layer == "fc2")
    assert "bias" in dict(entry.without)


def test_a_residual_sum_refuses_fewer_filters_with_its_name() -> None:
    graph = registry.load(f"{SAMPLES / 'branching.py'}:resnet_leaky", LoadOptions())
    entry = next(
        e
        for e in advise(graph, "cross-entropy").layers
        if any("joins it with" in reason for _, reason in e.without)
    )
    reason = dict(entry.without)["filters"]
    assert "residual branch of another size" in reason
    with pytest.raises(RefusedChange, match="residual branch"):
        rebuild(graph, Change(entry.layer, "filters", "one filter", filters=1))


def test_the_heads_outputs_stay() -> None:
    with pytest.raises(RefusedChange, match="output"):
        rebuild(load("lenet_main"), Change("fc1", "outputs", "fewer", filters=50))


def test_less_may_stay_determined_on_request() -> None:
    graph = load("lenet_main")
    for entry in advise(graph, "cross-entropy", "conv2", max_rho=0.4).layers:
        assert entry.candidates
        for candidate in entry.candidates:
            assert candidate.determined_fraction <= 0.4


def test_new_shapes_get_numbers_of_the_old_ones_by_seed() -> None:
    candidate = change_of("lenet_main", "conv4", "filters")
    original = advice_for("lenet_main").graph.weights
    weights = [ResampledWeights(original, candidate.graph.parameters, s) for s in (0, 0, 1)]
    first, again, other = (w.load("conv4.weight") for w in weights)
    assert first.shape == (2, 12, 5, 5)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.isin(first, original.load("conv4.weight")).all()
    assert np.array_equal(weights[0].load("conv1.weight"), original.load("conv1.weight"))


def test_nothing_to_advise_exits_0() -> None:
    source = str(SAMPLES / "lenet_underdetermined.onnx")
    result = run(source, "--layer", "conv1", "--no-confirm")
    assert result.exit_code == 0
    assert "nothing to advise" in result.stdout


def test_the_table_says_what_the_numbers_do_not_mean() -> None:
    result = run(str(SAMPLES / "lenet_main.onnx"), "--layer", "conv4", "--no-confirm")
    assert result.exit_code == 1
    for words in ("filters 3 -> 2", "30743 -> 24042", "closed, stops at", "724", "0.943"):
        assert words in result.stdout
    assert "Underdetermined is not private" in result.stdout


def test_json_and_the_reconstruction_of_the_changed_network_fails() -> None:
    result = run(str(SAMPLES / "lenet_main.onnx"), "--layer", "conv4", "--format", "json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["schema_version"] == 1
    assert "not private" in document["note"]
    (layer,) = document["layers"]
    best, *others = layer["changes"]
    assert others
    assert best["change"] == "kernel 5 -> 4, padding 2 -> 2+1"
    assert best["counts"]["rank_bound"] == 759
    assert best["closes_path"]
    evidence = best["confirmation"]
    assert evidence["status"] == "not reproduced"
    assert evidence["rank"] <= 759
    assert evidence["unknowns"] == 768


@pytest.mark.slow
@pytest.mark.parametrize("name", FLAGGED)
def test_no_layer_is_reconstructed_after_its_best_change(name: str) -> None:
    result = run(str(SAMPLES / f"{name}.onnx"), "--format", "json")
    layers = json.loads(result.stdout)["layers"]
    assert layers
    for layer in layers:
        best = layer["changes"][0]
        assert 0 < best["counts"]["determined_fraction"] < 1
        evidence = best["confirmation"]
        if evidence["rank"] is not None:
            assert evidence["rank"] < evidence["unknowns"]
        # A layer's input may still follow from what is below it: then the path is said to be open.
        assert evidence["status"] not in ("confirmed", None) or best["reaches_input"]
    assert any(entry["changes"][0]["confirmation"]["status"] != "confirmed" for entry in layers)


@pytest.mark.parametrize(
    ("name", "layer", "bound"), [("mlp_nobias", "fc2", 0), ("tabular_mlp", "fc1", 29)]
)
def test_a_frozen_layer_is_attacked_given_its_true_output(
    name: str, layer: str, bound: int
) -> None:
    (entry,) = json.loads(run(str(SAMPLES / f"{name}.onnx"), "--layer", layer, *JSON).stdout)[
        "layers"
    ]
    best = entry["changes"][0]
    evidence = best["confirmation"]
    assert (evidence["status"], evidence["scope"]) == ("not reproduced", "local")
    assert "its true output, which is more than an attacker has" in evidence["reason"]
    assert evidence["rank"] == best["counts"]["rank_bound"] < evidence["unknowns"]
    assert evidence["mse"] > 1e-4
    assert bound in (0, evidence["rank"])


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.pt2")), ids=lambda path: path.name)
def test_some_change_of_every_sample_makes_the_reconstruction_fail(path: Path) -> None:
    layers = json.loads(run(str(path), *JSON).stdout)["layers"]
    changes = [change for layer in layers for change in layer["changes"]]
    failed = [
        change["confirmation"]
        for change in changes
        if change["confirmation"] and change["confirmation"]["status"] == "not reproduced"
    ]
    assert failed
    assert all(evidence["rank"] < evidence["unknowns"] for evidence in failed)


def test_names_of_a_model_cannot_steer_a_terminal() -> None:
    from leakaudit.advice.render import as_json, as_table

    advice = advice_for("tabular_mlp")
    hostile = replace(advice, layers=(replace(advice.layers[0], layer="\x1b[31m::error::x"),))
    text = as_table("\x1b]0;model", hostile, 100)
    assert "\x1b" not in text
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())
    assert json.loads(as_json("m", hostile))["layers"][0]["layer"] == "\x1b[31m::error::x"


def test_parameters_are_counted_as_the_file_holds_them() -> None:
    stored = onnx.load(str(SAMPLES / "cnn6.onnx")).graph.initializer
    assert advice_for("cnn6").layers[0].candidates[0].parameters[0] == sum(
        prod(tensor.dims) for tensor in stored
    )
