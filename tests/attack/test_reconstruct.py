"""The attacker: what it may know, and what it says of gradients that are wrong or coarse."""

from __future__ import annotations

import dataclasses
import doctest
import inspect
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT

torch = pytest.importorskip("torch")

from hand_built import client_gradients, graph_of, network, probe, weights_of
from hypothesis import given, settings, strategies as st
from torch import nn

from leakaudit.attack.reconstruct import reconstruct
from leakaudit.attack.state import State
from leakaudit.confirm import client as victim, confirm as confirmation, probes
from leakaudit.confirm.confirm import ConfirmOptions, ConfirmResult, confirm
from leakaudit.findings import Scope, Status
from leakaudit.leakpath.path import find_leak_path

IMAGE = (1, 1, 8, 8)
SUCCESS = 1e-4  # of the mean square of what was to be recovered: 40 dB
LOSS = "cross-entropy"


def small() -> nn.Sequential:
    return network(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(384, 6),
    )


class TestWhatTheAttackerMayKnow:
    def test_its_arguments(self) -> None:
        parameters = list(inspect.signature(reconstruct).parameters)
        assert parameters == ["graph", "weights", "gradients", "loss", "memory"]

    def test_its_state_has_no_room_for_an_input(self) -> None:
        assert {field.name for field in dataclasses.fields(State)} == {
            "graph",
            "weights",
            "gradients",
            "precision",
            "loss",
            "head",
            "memory",
            "known",
            "solutions",
            "decided",
            "outputs",
            "attempts",
        }
        assert not hasattr(State(None, {}, {}, 0.0, LOSS), "__dict__")  # type: ignore[arg-type]

    def test_it_starts_without_any_knowledge(self) -> None:
        state = State(graph_of(small(), IMAGE), {}, {}, 0.0, LOSS)
        assert state.known == {}
        assert state.solutions == {}

    def test_it_needs_neither_the_client_nor_the_probe(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, x = small(), probe(IMAGE)
        graph, weights = graph_of(model, IMAGE), weights_of(model)
        gradients = client_gradients(model, x, LOSS)
        truth = x.clone()
        x.fill_(torch.nan)
        del model

        def unreachable(*_: object, **__: object) -> None:
            raise AssertionError("the attacker asked the client")

        for module in (victim, probes):
            for name, function in inspect.getmembers(module, inspect.isfunction):
                if function.__module__ == module.__name__:
                    monkeypatch.setattr(module, name, unreachable)
        result = reconstruct(graph, weights, gradients, LOSS)
        assert float((result.values["input"].tensor - truth).abs().max()) < 1e-9

    def test_it_leaves_weights_and_gradients_as_they_are(self) -> None:
        model = small()
        weights = weights_of(model)
        gradients = client_gradients(model, probe(IMAGE), LOSS)
        before = {n: (weights[n].clone(), gradients[n].clone()) for n in weights}
        reconstruct(graph_of(model, IMAGE), weights, gradients, LOSS)
        for name, (w, g) in before.items():
            assert torch.equal(weights[name], w)
            assert torch.equal(gradients[name], g)
            assert not weights[name].requires_grad

    def test_it_works_in_a_process_that_never_saw_the_input(self, tmp_path: Path) -> None:
        model, x = small(), probe(IMAGE)
        gradients = client_gradients(model, x, LOSS)
        np.savez(tmp_path / "weights.npz", **{n: w.numpy() for n, w in weights_of(model).items()})
        np.savez(tmp_path / "gradients.npz", **{n: g.numpy() for n, g in gradients.items()})
        script = f"""
import sys
import numpy as np
import torch
from torch import nn

sys.modules["leakaudit.confirm"] = None  # importing the client, or anything beside it, raises
from hand_built import graph_of
from leakaudit.attack.reconstruct import reconstruct

load = lambda name: {{k: torch.from_numpy(v) for k, v in np.load(name).items()}}
weights, gradients = load("weights.npz"), load("gradients.npz")
model = nn.Sequential(
    nn.Conv2d(1, 4, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(4, 6, 3, padding=1),
    nn.Sigmoid(), nn.Flatten(), nn.Linear(384, 6),
).double()
model.load_state_dict(weights)
result = reconstruct(graph_of(model, {IMAGE}), weights, gradients, {LOSS!r})
np.save("recovered.npy", result.values["input"].tensor.numpy())
"""
        paths = [str(ROOT / "tests/support"), str(ROOT)]
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        recovered = torch.from_numpy(np.load(tmp_path / "recovered.npy"))
        assert float((recovered - x).abs().max()) < 1e-9

    def test_two_runs_are_identical_to_the_last_bit(self) -> None:
        model = small()
        graph, weights = graph_of(model, IMAGE), weights_of(model)
        gradients = client_gradients(model, probe(IMAGE), LOSS)
        first, second = (reconstruct(graph, weights, gradients, LOSS) for _ in range(2))
        for name, known in first.values.items():
            assert torch.equal(known.tensor, second.values[name].tensor)
        assert first.mismatch == second.mismatch
        assert first.attempts == second.attempts

    def test_little_memory_changes_the_solver_and_not_the_answer(self) -> None:
        model, x = small(), probe(IMAGE)
        gradients = client_gradients(model, x, LOSS)
        graph, weights = graph_of(model, IMAGE), weights_of(model)
        result = reconstruct(graph, weights, gradients, LOSS, memory=1)
        assert all(s.solver.startswith("matrix-free") for s in result.solutions.values())
        assert float((result.values["input"].tensor - x).abs().max()) < 1e-4


def attacked(
    model: nn.Sequential,
    monkeypatch: pytest.MonkeyPatch,
    change: Mapping[str, float] | None = None,
    **options: Any,
) -> ConfirmResult:
    """Confirm a model whose client sends some gradients multiplied by a factor."""
    honest = victim.share_gradient

    def corrupted(*arguments: Any) -> victim.SharedGradient:
        shared = honest(*arguments)
        sent = {name: g * (change or {}).get(name, 1.0) for name, g in shared.gradients.items()}
        return dataclasses.replace(shared, gradients=sent)

    graph = graph_of(model, IMAGE)
    options = {"gradient_dtype": "float64", "device": "cpu", **options}
    with monkeypatch.context() as patch:
        patch.setattr(confirmation, "share_gradient", corrupted)
        return confirm(
            graph, find_leak_path(graph, LOSS), ["0", "2", "5"], ConfirmOptions(**options)
        )


def is_close(outcome: ConfirmResult) -> bool:
    """Whether the recovered image is the probe, computed anew from the pictures."""
    if outcome.reconstruction is None or outcome.original is None:
        return False
    error = (outcome.reconstruction - outcome.original).square().mean()
    return bool(error <= SUCCESS * outcome.original.square().mean())


PARAMETERS = ["0.weight", "0.bias", "2.weight", "2.bias", "5.weight", "5.bias"]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(name=st.sampled_from(PARAMETERS), factor=st.sampled_from([2.0, -1.0, 0.0, 1.001, 1e-3, 1e3]))
def test_confirmed_if_and_only_if_the_image_came_back(name: str, factor: float) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        outcome = attacked(small(), monkeypatch, {name: factor})
    assert (outcome.model.status is Status.CONFIRMED) == is_close(outcome)
    assert outcome.model.reason


@pytest.mark.parametrize("name", ["0.weight", "2.weight", "5.weight", "5.bias"])
def test_a_doubled_gradient_on_the_path_is_not_confirmed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = attacked(small(), monkeypatch, {name: 2.0})
    assert outcome.model.status is not Status.CONFIRMED
    first = outcome.layers["0"]
    # Locally, given the true gradient of its output, the first layer may still be solved.
    assert first.status is not Status.CONFIRMED or first.scope is Scope.LOCAL
    assert name != "0.weight" or first.status is not Status.CONFIRMED


@pytest.mark.parametrize("name", ["0.bias", "2.bias"])
def test_a_doubled_gradient_beside_the_path_does_no_harm(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = attacked(small(), monkeypatch, {name: 2.0})
    assert outcome.model.status is Status.CONFIRMED
    assert is_close(outcome)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_attacker_notices_gradients_that_do_not_fit_without_knowing_the_truth(
    name: str,
) -> None:
    model = small()
    graph, weights = graph_of(model, IMAGE), weights_of(model)
    gradients = client_gradients(model, probe(IMAGE), LOSS)
    honest = reconstruct(graph, weights, gradients, LOSS)
    assert honest.mismatch is not None
    assert honest.mismatch < 1e-12
    gradients[name] = 2 * gradients[name]
    result = reconstruct(graph, weights, gradients, LOSS)
    assert result.broken is not None or (result.mismatch or 0) > 1e-3


def tolerant() -> nn.Sequential:
    """Overdetermined enough for coarse gradients."""
    return network(
        nn.Conv2d(1, 16, 3, padding=1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(1024, 6)
    )


@pytest.mark.parametrize(
    ("dtype", "error"),
    [("float64", 1e-20), ("float32", 1e-9), ("float16", None), ("bfloat16", None)],
)
@pytest.mark.parametrize("make", [small, tolerant], ids=["two convolutions", "one convolution"])
def test_precision_of_the_gradients(dtype: str, error: float | None, make: Any) -> None:
    model = make()
    graph = graph_of(model, IMAGE)
    options = ConfirmOptions(gradient_dtype=dtype, device="cpu")
    outcome = confirm(graph, find_leak_path(graph, LOSS), ["0"], options)
    assert outcome.model.gradient_dtype == dtype
    assert outcome.model.reason
    assert (outcome.model.status is Status.CONFIRMED) == is_close(outcome)
    if error is not None:
        assert outcome.model.status is Status.CONFIRMED
        assert outcome.model.mse is not None
        assert outcome.model.mse < error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_coarser_gradients_give_a_coarser_answer(dtype: Any) -> None:
    model, x = tolerant(), probe(IMAGE)
    gradients = client_gradients(model, x, LOSS, dtype)
    assert {g.dtype for g in gradients.values()} == {dtype}
    result = reconstruct(graph_of(model, IMAGE), weights_of(model), gradients, LOSS)
    assert result.broken is None
    error = float((result.values["input"].tensor - x).abs().max())
    assert torch.finfo(dtype).eps / 1e3 < error < 30 * torch.finfo(dtype).eps
    assert result.values["input"].tensor.dtype is torch.float64


class TestItIsPublic:
    def test_the_example_in_its_docstring_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(ROOT)
        module = sys.modules[reconstruct.__module__]
        result = doctest.testmod(module)
        assert result.attempted >= 8
        assert result.failed == 0

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda w, g: ("hinge", w, g), "'hinge': it must be one of cross-entropy, bce, mse"),
            (lambda w, g: (LOSS, {k: w[k] for k in w if k != "2.weight"}, g), "no weight '2.w"),
            (lambda w, g: (LOSS, w | {"0.bias": w["0.bias"][:3]}, g), r"weight '0.bias' .* \(3,\)"),
            (
                lambda w, g: (LOSS, w, g | {"0.bias": g["0.bias"][:3]}),
                r"gradient '0.bias' .*\(4,\)",
            ),
            (lambda w, g: (LOSS, w, g | {"9.bias": g["0.bias"]}), "no such parameter"),
        ],
    )
    def test_arguments_that_do_not_belong_together_are_refused(
        self, change: Any, named: str
    ) -> None:
        model = small()
        weights, gradients = weights_of(model), client_gradients(model, probe(IMAGE), LOSS)
        loss, weights, gradients = change(weights, gradients)
        with pytest.raises(ValueError, match=named):
            reconstruct(graph_of(model, IMAGE), weights, gradients, loss)
