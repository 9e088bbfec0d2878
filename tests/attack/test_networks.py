"""Whole networks: each kind is either reconstructed to rounding or has a named outcome."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hand_built import (
    Atan,
    client_gradients,
    graph_of,
    network,
    probe,
    weights_of,
)
from torch import nn

from leakaudit.attack.reconstruct import reconstruct
from leakaudit.confirm.confirm import ConfirmOptions, ConfirmResult, confirm
from leakaudit.execute import run
from leakaudit.findings import Scope, Status
from leakaudit.leakpath.path import find_leak_path
from leakaudit.operators import Conv, Linear

IMAGE = (1, 1, 8, 8)


def leaky() -> nn.Module:
    return nn.LeakyReLU(0.2)


def two_convolutions(activation: Callable[[], nn.Module], bias: bool = True) -> nn.Sequential:
    return network(
        nn.Conv2d(1, 4, 3, padding=1, bias=bias),
        activation(),
        nn.Conv2d(4, 4, 3, padding=1, bias=bias),
        activation(),
        nn.Flatten(),
        nn.Linear(256, 6),
    )


def wide(activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Enough filters for gradient constraints to do without the outputs that are flat."""
    return network(
        nn.Conv2d(1, 16, 3, padding=1),
        activation(),
        nn.Conv2d(16, 40, 3, padding=1, stride=2),
        activation(),
        nn.Flatten(),
        nn.Linear(640, 6),
    )


def one_convolution(
    convolution: nn.Module, features: int, activation: nn.Module | None = None, **head: Any
) -> nn.Sequential:
    classes = head.pop("classes", 6)
    return network(
        convolution, activation or leaky(), nn.Flatten(), nn.Linear(features, classes, **head)
    )


CROSS_ENTROPY, BCE, MSE = "cross-entropy", "bce", "mse"
RECONSTRUCTED: dict[str, tuple[nn.Sequential, tuple[int, ...], str]] = {
    "leaky relu": (two_convolutions(leaky), IMAGE, CROSS_ENTROPY),
    "sigmoid": (two_convolutions(nn.Sigmoid), IMAGE, CROSS_ENTROPY),
    "tanh": (two_convolutions(nn.Tanh), IMAGE, CROSS_ENTROPY),
    "elu": (two_convolutions(lambda: nn.ELU(1.2)), IMAGE, CROSS_ENTROPY),
    "softplus": (two_convolutions(nn.Softplus), IMAGE, CROSS_ENTROPY),
    "prelu": (two_convolutions(nn.PReLU), IMAGE, CROSS_ENTROPY),
    "prelu per channel": (two_convolutions(lambda: nn.PReLU(4)), IMAGE, CROSS_ENTROPY),
    "atan": (two_convolutions(Atan), IMAGE, CROSS_ENTROPY),
    "celu": (two_convolutions(lambda: nn.CELU(1.5)), IMAGE, CROSS_ENTROPY),
    "selu": (two_convolutions(nn.SELU), IMAGE, CROSS_ENTROPY),
    "softsign": (two_convolutions(nn.Softsign), IMAGE, CROSS_ENTROPY),
    "hard sigmoid": (two_convolutions(nn.Hardsigmoid), IMAGE, CROSS_ENTROPY),
    "hardtanh": (two_convolutions(nn.Hardtanh), IMAGE, CROSS_ENTROPY),
    "hardtanh, mostly flat": (wide(lambda: nn.Hardtanh(-0.3, 0.3)), IMAGE, CROSS_ENTROPY),
    "relu6": (wide(nn.ReLU6), IMAGE, CROSS_ENTROPY),
    "identity": (two_convolutions(nn.Identity), IMAGE, CROSS_ENTROPY),
    "convolutions without bias": (two_convolutions(leaky, bias=False), IMAGE, CROSS_ENTROPY),
    "relu": (wide(nn.ReLU), IMAGE, CROSS_ENTROPY),
    "relu first, leaky relu later": (
        network(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1),
            leaky(),
            nn.Flatten(),
            nn.Linear(768, 6),
        ),
        IMAGE,
        CROSS_ENTROPY,
    ),
    "sigmoid first, relu later": (
        network(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Sigmoid(),
            nn.Conv2d(4, 64, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4096, 6),
        ),
        IMAGE,
        CROSS_ENTROPY,
    ),
    "no bias anywhere, cross-entropy": (
        one_convolution(nn.Conv2d(1, 4, 3, padding=1, bias=False), 256, bias=False),
        IMAGE,
        CROSS_ENTROPY,
    ),
    "no bias anywhere, logistic loss": (
        one_convolution(nn.Conv2d(1, 4, 3, padding=1, bias=False), 256, bias=False, classes=1),
        IMAGE,
        BCE,
    ),
    "head without bias, logistic loss": (
        one_convolution(nn.Conv2d(1, 4, 3, padding=1), 256, bias=False, classes=1),
        IMAGE,
        BCE,
    ),
    "head without bias, several logistic outputs": (
        one_convolution(nn.Conv2d(1, 4, 3, padding=1), 256, bias=False, classes=3),
        IMAGE,
        BCE,
    ),
    "squared error": (one_convolution(nn.Conv2d(1, 4, 3, padding=1), 256), IMAGE, MSE),
    "groups": (
        network(
            nn.Conv2d(2, 8, 3, padding=1, groups=2),
            leaky(),
            nn.Conv2d(8, 8, 3, padding=1, groups=4),
            leaky(),
            nn.Flatten(),
            nn.Linear(512, 6),
        ),
        (1, 2, 8, 8),
        CROSS_ENTROPY,
    ),
    "depthwise": (
        one_convolution(nn.Conv2d(3, 6, 3, padding=1, groups=3), 384),
        (1, 3, 8, 8),
        CROSS_ENTROPY,
    ),
    "dilation": (
        one_convolution(nn.Conv2d(1, 6, 3, padding=2, dilation=2), 384),
        IMAGE,
        CROSS_ENTROPY,
    ),
    "non-square kernel, stride, padding and input": (
        one_convolution(nn.Conv2d(3, 12, (3, 5), stride=(2, 1), padding=(1, 2)), 12 * 5 * 11),
        (1, 3, 9, 11),
        CROSS_ENTROPY,
    ),
    "1-d": (
        network(
            nn.Conv1d(2, 6, 5, padding=2),
            nn.Tanh(),
            nn.Conv1d(6, 12, 3, stride=2, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(120, 5),
        ),
        (1, 2, 20),
        CROSS_ENTROPY,
    ),
    "3-d": (
        one_convolution(nn.Conv3d(1, 6, 3, padding=1), 6 * 4 * 5 * 6, nn.Sigmoid()),
        (1, 1, 4, 5, 6),
        CROSS_ENTROPY,
    ),
    "stride 3": (one_convolution(nn.Conv2d(1, 10, 3, stride=3), 90), (1, 1, 9, 9), CROSS_ENTROPY),
    "stride 3 with relu": (
        one_convolution(nn.Conv2d(1, 48, 3, stride=3), 432, nn.ReLU()),
        (1, 1, 9, 9),
        CROSS_ENTROPY,
    ),
    "padding 0": (
        network(
            nn.Conv2d(1, 6, 3),
            leaky(),
            nn.Conv2d(6, 9, 3),
            leaky(),
            nn.Flatten(),
            nn.Linear(144, 5),
        ),
        IMAGE,
        CROSS_ENTROPY,
    ),
    "dense layers alone": (
        network(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 9), nn.Sigmoid(), nn.Linear(9, 4)),
        (1, 12),
        CROSS_ENTROPY,
    ),
}


def sent_and_recovered(model: nn.Sequential, shape: tuple[int, ...], loss: str) -> tuple[Any, Any]:
    """The private example, and what the attack computes from torch's own gradients."""
    x = probe(shape)
    graph, gradients = graph_of(model, shape), client_gradients(model, x, loss)
    return x, reconstruct(graph, weights_of(model), gradients, loss)


def confirmed(
    model: nn.Sequential, shape: tuple[int, ...], loss: str = CROSS_ENTROPY, **options: Any
) -> ConfirmResult:
    graph = graph_of(model, shape)
    layers = [node.name for node in graph.nodes if isinstance(node.op, Conv | Linear)]
    options = {"gradient_dtype": "float64", "device": "cpu", **options}
    return confirm(graph, find_leak_path(graph, loss), layers, ConfirmOptions(loss=loss, **options))


@pytest.mark.parametrize("name", RECONSTRUCTED)
def test_graph_computes_what_the_module_computes(name: str) -> None:
    model, shape, _ = RECONSTRUCTED[name]
    graph, x = graph_of(model, shape), probe(shape)
    values = run(graph, weights_of(model), {"input": x})
    torch.testing.assert_close(values[graph.outputs[0]], model(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", RECONSTRUCTED)
def test_input_comes_back_from_the_gradients_of_torch(name: str) -> None:
    x, result = sent_and_recovered(*RECONSTRUCTED[name])
    assert result.broken is None, str(result.broken)
    assert result.target == "input"
    got = result.values["input"]
    assert got.mask is None
    assert got.tensor.dtype is torch.float64
    # torch's own gradient of hardsigmoid takes one sixth in single precision.
    tolerance = 1e-6 if name == "hard sigmoid" else 1e-8
    assert float((got.tensor - x).abs().max()) < tolerance
    assert result.mismatch is None or result.mismatch < tolerance
    assert result.attempts


@pytest.mark.parametrize("name", RECONSTRUCTED)
def test_confirmation_says_so(name: str) -> None:
    model, shape, loss = RECONSTRUCTED[name]
    outcome = confirmed(model, shape, loss)
    found = outcome.model
    assert (found.status, found.scope) == (Status.CONFIRMED, Scope.END_TO_END)
    assert found.mse is not None
    assert found.mse < 1e-16
    assert found.unknowns == math.prod(shape)
    assert found.solver
    assert found.seconds is not None
    first = next(iter(outcome.layers.values()))
    assert (first.status, first.scope) == (Status.CONFIRMED, Scope.END_TO_END)
    for layer in outcome.layers.values():
        assert layer.reason
    if outcome.original is not None:
        difference = (outcome.reconstruction - outcome.original).square().mean()
        assert float(difference) == pytest.approx(found.mse)


def dead_layer() -> nn.Sequential:
    model = two_convolutions(nn.ReLU)
    model[2].bias.data -= 100
    return model


NAMED: dict[str, tuple[nn.Sequential, tuple[int, ...], str, str]] = {
    "too few equations because of relu": (two_convolutions(nn.ReLU), IMAGE, "2", "rank"),
    "a dead relu layer": (dead_layer(), IMAGE, "2", "rank 0 of 256"),
    "a learned slope below 0": (
        two_convolutions(lambda: nn.PReLU(init=-0.5)),
        IMAGE,
        "3",
        "slope is not positive",
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_path_that_does_not_hold_breaks_off_with_the_place_and_the_reason(name: str) -> None:
    model, shape, node, reason = NAMED[name]
    outcome = confirmed(model, shape)
    assert outcome.model.status is Status.NOT_REPRODUCED
    assert f"breaks off at {node}: " in outcome.model.reason
    assert reason in outcome.model.reason
    assert outcome.model.mse is None
    _, result = sent_and_recovered(model, shape, CROSS_ENTROPY)
    assert result.broken is not None
    assert result.broken.node == node
    assert "input" not in result.values


def test_weights_of_zeros_are_a_named_outcome() -> None:
    model = network(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 6), scale=0.0
    )
    outcome = confirmed(model, IMAGE)
    assert outcome.model.status is Status.NOT_REPRODUCED
    assert "rank 0 of 64" in outcome.model.reason
    for layer in outcome.layers.values():
        assert layer.reason


def test_a_dead_filter_is_no_obstacle_where_the_others_suffice() -> None:
    # The published code raises "array must be square" here.
    model = one_convolution(nn.Conv2d(1, 12, 3, padding=1), 768, nn.ReLU())
    model[0].bias.data[5] = -100
    outcome = confirmed(model, IMAGE)
    assert outcome.model.status is Status.CONFIRMED
    assert outcome.model.mse is not None
    assert outcome.model.mse < 1e-16


@pytest.mark.parametrize("loss", [CROSS_ENTROPY, BCE, MSE])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_zeros_recover_nothing_and_say_why(loss: str, bias: bool) -> None:
    model = one_convolution(nn.Conv2d(1, 4, 3, padding=1), 256, bias=bias)
    graph, weights = graph_of(model, IMAGE), weights_of(model)
    zero = {name: torch.zeros_like(w) for name, w in weights.items()}
    result = reconstruct(graph, weights, zero, loss)
    assert "input" not in result.values
    assert result.broken is not None
    assert result.broken.node == "3"
    assert "0" in result.broken.reason


def test_an_underdetermined_layer_is_never_confirmed() -> None:
    model = one_convolution(nn.Conv2d(3, 2, 3, stride=2, padding=1), 32)
    outcome = confirmed(model, (1, 3, 8, 8))
    layer = outcome.layers["0"]
    assert layer.status is Status.NOT_REPRODUCED
    assert layer.scope is Scope.END_TO_END
    assert layer.rank is not None
    assert layer.unknowns == 192
    assert layer.rank < 192
    assert f"rank {layer.rank} of 192" in layer.reason
    # What the model as a whole leaks is the input of its head, not the image.
    assert outcome.reconstruction is None
    assert outcome.model.unknowns == 32


def test_pixels_that_no_tap_reads_are_counted_and_not_claimed() -> None:
    model = one_convolution(nn.Conv2d(1, 6, 2, stride=3), 54)
    outcome = confirmed(model, (1, 1, 9, 9))
    assert outcome.model.status is Status.NOT_REPRODUCED
    assert "45 of 81 values" in outcome.model.reason
    x, result = sent_and_recovered(model, (1, 1, 9, 9), CROSS_ENTROPY)
    mask = result.values["input"].mask
    read = torch.tensor([True, True, False] * 3)
    assert torch.equal(mask[0, 0], read[:, None] & read[None, :])
    assert float((result.values["input"].tensor - x)[mask].abs().max()) < 1e-10


@pytest.mark.parametrize("activation", [nn.SiLU, nn.GELU])
def test_what_is_not_monotone_passes_no_gradient(activation: Callable[[], Any]) -> None:
    """Positive outputs are equations, and here too few: about half of 256, for 384 unknowns."""
    model = two_convolutions(activation)
    outcome = confirmed(model, IMAGE)
    assert outcome.model.unknowns == 256  # the input of the head, not the image
    assert outcome.layers["0"].scope is not Scope.END_TO_END
    x, result = sent_and_recovered(model, IMAGE, CROSS_ENTROPY)
    assert "input" not in result.values
    assert float((result.values["t4"].tensor - model[:5](x).detach()).abs().max()) < 1e-12


@pytest.mark.parametrize("activation", [nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish])
def test_enough_positive_outputs_give_the_input(activation: Callable[[], Any]) -> None:
    """The equations of the positive outputs, solved densely, have the rank and the solution."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), activation(), nn.Flatten(), nn.Linear(24 * 64, 10)
    ).double()
    x, result = sent_and_recovered(model, IMAGE, CROSS_ENTROPY)
    assert result.broken is None
    o = model[0](x).detach()
    on = (o > 1e-9).flatten()
    basis = torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)
    rows = nn.functional.conv2d(basis, model[0].weight.detach(), padding=1).flatten(1).T[on]
    right = (o - model[0].bias.detach()[:, None, None]).flatten()[on]
    dense = torch.linalg.lstsq(rows, right[:, None]).solution.reshape(IMAGE)
    assert int(torch.linalg.matrix_rank(rows)) == 64
    assert float((result.values["input"].tensor - dense).abs().max()) < 1e-9
    assert float((result.values["input"].tensor - x).abs().max()) < 1e-9


@pytest.mark.parametrize(("activation", "filters"), [(nn.GELU, 2), (nn.SiLU, 1)])
def test_too_few_positive_outputs_are_said_to_be_too_few(
    activation: Callable[[], Any], filters: int
) -> None:
    """Counting cannot tell how many outputs are positive: the confirmation does."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, filters, 3, padding=1), activation(), nn.Flatten(), nn.Linear(filters * 64, 9)
    ).double()
    outcome = confirmed(model, IMAGE)
    assert outcome.model.status is Status.NOT_REPRODUCED
    assert "give no equation" in outcome.model.reason


def test_a_batch_is_not_separated_by_one_bias() -> None:
    outcome = confirmed(two_convolutions(leaky), (2, 1, 8, 8))
    assert outcome.model.status is not Status.CONFIRMED
    assert outcome.model.reason
    # Given the true gradient of its output, each convolution alone still separates the two.
    assert outcome.layers["0"].scope is Scope.LOCAL
    assert outcome.layers["0"].status is Status.CONFIRMED
    assert "given the true gradient" in outcome.layers["0"].reason


def test_two_confirmations_are_identical() -> None:
    first, second = (confirmed(two_convolutions(leaky), IMAGE) for _ in range(2))
    assert torch.equal(first.reconstruction, second.reconstruction)
    for name in ("status", "mse", "rank", "condition", "residual", "psnr", "ssim", "solver"):
        assert getattr(first.model, name) == getattr(second.model, name)


def test_the_seed_changes_the_probe_and_nothing_else() -> None:
    first, second = (confirmed(two_convolutions(leaky), IMAGE, seed=seed) for seed in (0, 1))
    assert not torch.equal(first.original, second.original)
    assert first.model.status is second.model.status is Status.CONFIRMED


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["leaky relu", "relu", "1-d", "3-d", "groups"])
def test_cuda_confirms_what_the_cpu_confirms(name: str) -> None:
    model, shape, loss = RECONSTRUCTED[name]
    outcome = confirmed(model, shape, loss, device="cuda")
    assert outcome.model.status is Status.CONFIRMED
    assert outcome.model.device == "cuda"
    assert outcome.model.mse is not None
    assert outcome.model.mse < 1e-16
