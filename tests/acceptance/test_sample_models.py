"""The sample networks: true to the published ones, and leaking or stopping where they should."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from samples import BRANCHING, NAMES, branching, loss, network_of, networks, probes

# Convolutions as "in-out kernel stride padding", then the activations' initials (L leaky with slope
# 0.2, R relu, S sigmoid, T tanh), then the dense layer.
R_CONV_FRONT = ["3-12 k5 s2 p2", "12-16 k5 s2 p2"]
R_CONV_MAIN = [*R_CONV_FRONT, "16-12 k5 s1 p2", "12-3 k5 s1 p2"]
R_CONV_NARROW = [*R_CONV_FRONT, "16-3 k5 s1 p2", "3-3 k5 s1 p2"]
R_GAP_BACK = ["36-36 k3 s1 p1", "36-64 k3 s2 p1", "64-128 k3 s1 p1"]
ARCHITECTURES = {
    "lenet": ([*R_CONV_FRONT, "16-12 k5 s1 p2", "12-12 k5 s1 p2"], "LLRR", "768-100"),
    "lenet_main": (R_CONV_MAIN, "LLRR", "192-100"),
    "lenet_main_leakyrelu": (R_CONV_MAIN, "LLLL", "192-100"),
    "lenet_main_sigmoid": (R_CONV_MAIN, "LLSS", "192-100"),
    "lenet_main_tanh": (R_CONV_MAIN, "LLTT", "192-100"),
    "lenet_o": (R_CONV_NARROW, "LLRR", "192-100"),
    "cnn6_o": ([*R_CONV_NARROW, *["3-3 k5 s1 p2"] * 2], "LLRRRR", "192-10"),
    "lenet_4relu": (
        ["3-12 k5 s2 p2", "12-22 k5 s2 p2", "22-3 k5 s1 p2", "3-3 k5 s1 p2"],
        "LRRR",
        "192-100",
    ),
    "lenet_allrelu": (
        ["3-77 k5 s2 p2", "77-22 k5 s2 p2", "22-3 k5 s1 p2", "3-3 k5 s1 p2"],
        "RRRR",
        "192-100",
    ),
    "lenet_dlg": (
        ["3-12 k5 s2 p2", "12-12 k5 s2 p2", "12-12 k5 s1 p2"],
        "SSS",
        "768-100",
    ),
    "cnn6": (
        ["3-12 k4 s2 p2", "12-36 k3 s2 p1", "36-36 k3 s1 p1", *R_GAP_BACK],
        "LLLLLL",
        "3200-1",
    ),
    "cnn6_d": (
        ["3-12 k4 s2 p2", "12-20 k3 s2 p1", "20-36 k3 s1 p1", *R_GAP_BACK],
        "LLLLLL",
        "3200-1",
    ),
}
INITIALS = {"LeakyReLU": "L", "ReLU": "R", "Sigmoid": "S", "Tanh": "T"}

# Per convolution: |X|, |A|, |B|.
COUNTS = {
    "lenet_main": [(3072, 900, 3072), (3072, 4800, 1024), (1024, 4800, 768), (768, 900, 192)],
    "cnn6_d": [
        (3072, 576, 3468),
        (3468, 2160, 1620),
        (1620, 6480, 2916),
        (2916, 11664, 2916),
        (2916, 20736, 1600),
        (1600, 73728, 3200),
    ],
    "lenet_underdetermined": [
        (3072, 300, 1024),
        (1024, 1200, 768),
        (768, 3600, 768),
        (768, 900, 192),
    ],
    "lenet_unread": [(3072, 36, 3072), (3072, 4800, 1024), (1024, 4800, 768), (768, 900, 192)],
    "lenet_skipping": [(3072, 24, 2048), (2048, 3200, 1024), (1024, 4800, 768), (768, 900, 192)],
}


def _convolutions(name: str, image: torch.Tensor):
    """Layer, input, output and the loss gradient of the output of every convolution, in float64.

    The label is 0, the loss that of the network's kind.
    """
    network, seen = network_of(name).double(), []

    def keep(layer, inputs, output):
        output.retain_grad()
        seen.append((layer, inputs[0].detach(), output))

    for layer in network:
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(keep)
    loss(network(image.double())).backward()
    return [(layer, inputs, output.detach(), output.grad) for layer, inputs, output in seen]


def _stacked_rank(layer, inputs, gradient) -> int:
    """Numerical rank of gradient and weight constraints together, got by differentiation."""

    def constraints(x: torch.Tensor) -> torch.Tensor:
        weight = layer.weight
        output = torch.nn.functional.conv2d(x, weight, None, layer.stride, layer.padding)
        (weight_gradient,) = torch.autograd.grad(
            (output * gradient).sum(), weight, create_graph=True
        )
        scale = gradient.abs().max()
        return torch.cat([weight_gradient.flatten() / scale, output.flatten()])

    # Both kinds are linear in the input, so unit inputs give the columns of the matrix.
    columns = []
    for index in range(inputs.numel()):
        unit = torch.zeros(inputs.numel(), dtype=torch.float64)
        unit[index] = 1
        columns.append(constraints(unit.reshape(inputs.shape)).detach())
    matrix = torch.stack(columns, dim=1)  # shape: (|A| + |B|, |X|)
    return int(torch.linalg.matrix_rank(matrix, rtol=1e-10))


# --- the networks --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "registry", "names"),
    [(networks, networks.NETWORKS, NAMES), (branching, branching.BRANCHING, BRANCHING)],
    ids=["networks", "branching"],
)
def test_registry_names_every_builder(module, registry, names: list[str]) -> None:
    public = {
        name
        for name, value in vars(module).items()
        if isinstance(value, Callable)
        and getattr(value, "__module__", "") == module.__name__
        and not name.startswith("_")
        and not isinstance(value, type)
    }
    assert [builder.__name__ for builder in registry] == names
    assert public == set(names)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_is_the_published_one(name: str) -> None:
    layers = list(network_of(name))
    convolutions = [
        f"{layer.in_channels}-{layer.out_channels} k{layer.kernel_size[0]} s{layer.stride[0]} "
        f"p{layer.padding[0]}"
        for layer in layers
        if isinstance(layer, torch.nn.Conv2d)
    ]
    activations = [layer for layer in layers if type(layer).__name__ in INITIALS]
    (dense,) = (layer for layer in layers if isinstance(layer, torch.nn.Linear))
    expected = ARCHITECTURES[name]
    assert convolutions == expected[0]
    assert "".join(INITIALS[type(layer).__name__] for layer in activations) == expected[1]
    assert f"{dense.in_features}-{dense.out_features}" == expected[2]
    assert {x.negative_slope for x in activations if hasattr(x, "negative_slope")} <= {0.2}
    assert len(layers) == len(convolutions) + len(activations) + 2  # flatten and the dense layer
    has_bias = any(
        parameter.endswith("bias") for parameter, _ in network_of(name).named_parameters()
    )
    assert has_bias == (name not in {"cnn6", "cnn6_d"})


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_uniform_and_the_same_in_every_run(name: str) -> None:
    before = torch.get_rng_state()
    first, second = network_of(name).state_dict(), network_of(name).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    values = torch.cat([value.flatten() for value in first.values()])
    assert values.dtype == torch.float32
    assert -0.5 <= values.min() < -0.49
    assert 0.49 < values.max() < 0.5
    assert abs(values.var() - 1 / 12) < 0.005


@pytest.mark.parametrize("name", COUNTS)
def test_constraint_counts(name: str) -> None:
    counts = [
        (inputs.numel(), layer.weight.numel(), output.numel())
        for layer, inputs, output, _ in _convolutions(name, probes(name)[0])
    ]
    assert counts == COUNTS[name]


@pytest.mark.parametrize("name", BRANCHING)
def test_branching_networks_are_the_same_in_every_run(name: str) -> None:
    before = torch.get_rng_state()
    first, second = network_of(name).state_dict(), network_of(name).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(value.dtype == torch.float32 for value in first.values())
    assert all(value.unique().numel() > 1 for key, value in first.items() if "norm" not in key)


@pytest.mark.parametrize("name", BRANCHING)
def test_branching_networks_take_any_number_of_examples(name: str) -> None:
    batch = torch.cat(probes(name))
    with torch.no_grad():
        together = network_of(name)(batch)
        apart = torch.cat([network_of(name)(example[None]) for example in batch])
    assert together.shape == (2, 10)
    assert torch.allclose(together, apart, rtol=1e-4, atol=1e-5)


def test_transformers_differ_in_their_positions_alone() -> None:
    learned, fixed = network_of("vit"), network_of("vit_sinusoidal")
    trained = [set(dict(network.named_parameters())) for network in (learned, fixed)]
    assert trained[0] - trained[1] == {"position_embedding"}
    assert trained[1] <= trained[0]
    positions = fixed.position_embedding
    assert positions.shape == learned.position_embedding.shape == (1, 17, 64)
    # Vaswani et al., section 3.5, written out for some entries.
    for position, pair in ((0, 0), (1, 0), (16, 0), (3, 5), (16, 31)):
        angle = torch.tensor(position / 10000 ** (2 * pair / 64), dtype=torch.float64)
        entries = positions[0, position, 2 * pair : 2 * pair + 2].double()
        assert torch.allclose(entries, torch.stack([angle.sin(), angle.cos()]), atol=1e-6)


def test_residual_networks_are_one_network_with_one_change_each() -> None:
    expected = {
        "resnet_leaky": ("16-16", "conv1 conv2 block.a block.b", 1024),
        "resnet_gap": ("16-16", "conv1 conv2 block.a block.b", 16),
        "resnet_short": ("12-12", "conv1 block.a block.b conv2", 1024),
    }
    for name, (block, order, features) in expected.items():
        network, seen = network_of(name), []
        layers = {key: it for key, it in network.named_modules() if hasattr(it, "in_channels")}
        for key, layer in layers.items():
            layer.register_forward_hook(lambda *_, key=key, seen=seen: seen.append(key))
        network(probes(name)[0])
        assert " ".join(seen) == order
        shapes = {k: f"{c.in_channels}-{c.out_channels}" for k, c in layers.items()}
        assert shapes == {"conv1": "3-12", "conv2": "12-16", "block.a": block, "block.b": block}
        assert network.fc1.in_features == features
        leaky = [it for it in network.modules() if isinstance(it, torch.nn.LeakyReLU)]
        assert [it.negative_slope for it in leaky] == [0.2] * 4
        with torch.no_grad():  # a block whose second convolution is silent passes its input on
            network.block.b.weight.zero_()
            network.block.b.bias.zero_()
            x = torch.rand(1, network.block.a.in_channels, 8, 8)
            assert torch.equal(network.block(x), x)


@pytest.mark.parametrize("name", NAMES)
def test_label_zero_sends_a_gradient_for_every_layer(name: str) -> None:
    for probe in probes(name):
        network = network_of(name)
        loss(network(probe)).backward()
        for parameter, value in network.named_parameters():
            assert torch.isfinite(value.grad).all(), parameter
            assert value.grad.abs().max() > 1e-3, parameter


@pytest.mark.parametrize(
    "name", [*ARCHITECTURES, "lenet_underdetermined", "lenet_unread", "lenet_skipping"]
)
def test_label_zero_is_never_the_prediction(name: str) -> None:
    generator = torch.Generator().manual_seed(21)
    coarse = torch.rand((200, 3, 5, 5), generator=generator)
    ranges = torch.rand((2, 200, 1, 1, 1), generator=generator).sort(dim=0).values
    images = ranges[0] + (ranges[1] - ranges[0]) * torch.nn.functional.interpolate(
        coarse, size=(32, 32), mode="bilinear"
    )
    with torch.no_grad():
        output = network_of(name)(images)
    # A single logit predicts label 1 where it is positive.
    predicted = output[:, 0] > 0 if output.shape[1] == 1 else output.argmax(dim=1)
    assert (predicted != 0).all()


def test_second_convolution_of_cnn6_d() -> None:
    _, second, *_ = _convolutions("cnn6_d", probes("cnn6_d")[0])
    _, inputs, output, _ = second
    assert tuple(inputs.shape) == (1, 12, 17, 17)
    assert tuple(output.shape) == (1, 20, 9, 9)


def test_underdetermined_sample_stops_at_its_first_layer_and_nowhere_else() -> None:
    first, *others = _convolutions("lenet_underdetermined", probes("lenet_underdetermined")[0])
    layer, inputs, output, _ = first
    assert inputs.numel() > layer.weight.numel() + output.numel()
    for layer, inputs, _, gradient in others:
        assert _stacked_rank(layer, inputs, gradient) == inputs.numel()


def test_unread_sample_reads_one_pixel_of_four() -> None:
    network = network_of("lenet_unread")
    image = probes("lenet_unread")[0].requires_grad_()
    loss(network(image)).backward()
    unread = image.grad == 0
    assert int(unread.sum()) == 2304
    assert not unread[..., ::2, ::2].any()
    # The source material's rule flags the layer all the same.
    (_, inputs, output, _), *_ = _convolutions("lenet_unread", image.detach())
    assert inputs.numel() <= network.conv1.weight.numel() + output.numel()
