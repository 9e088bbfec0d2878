"""The sample networks as PyTorch modules: one builder without arguments per network.

Every builder returns a plain chain of layers named conv1, act1, conv2, ..., flatten, fc1, ... with
weights and biases drawn uniformly from (-0.5, 0.5) by a generator of its own, so that a network is
the same in every run and building one leaves PyTorch's global generator alone. Losses are not part
of the networks: cross-entropy, except for cnn6 and cnn6_d, whose single output is a logit.

Weights this large saturate the losses: an example that the network already gets right sends a
gradient of exactly zero, and a narrow ReLU layer may be dead. The seeds were picked so that on
smooth or noisy images label 0 is never the prediction and enough filters of every ReLU layer are
alive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

IMAGE_SHAPE = (1, 3, 32, 32)


class SampleNetwork(nn.Sequential):
    """A chain of named layers.

    Attributes:
        input_shape: The shape of one example, with the batch axis: (1, 3, 32, 32) or (1, 30).
    """

    input_shape: tuple[int, ...]


# --- convolutional networks whose parameters reveal the whole image ------------------------------


def lenet() -> SampleNetwork:
    """LeNet of R-CONV."""
    return _lenet(
        seed=9,
        filters=(12, 16, 12, 12),
        strides=(2, 2, 1, 1),
        activations=(_leaky_relu, _leaky_relu, nn.ReLU, nn.ReLU),
        classes=100,
    )


def lenet_main() -> SampleNetwork:
    """LeNet of R-CONV's published script, ReLU after the last two convolutions."""
    return _lenet_main(nn.ReLU)


def lenet_main_leakyrelu() -> SampleNetwork:
    """lenet_main with LeakyReLU after the last two convolutions; the same weights."""
    return _lenet_main(_leaky_relu)


def lenet_main_sigmoid() -> SampleNetwork:
    """lenet_main with Sigmoid after the last two convolutions; the same weights."""
    return _lenet_main(nn.Sigmoid)


def lenet_main_tanh() -> SampleNetwork:
    """lenet_main with Tanh after the last two convolutions; the same weights."""
    return _lenet_main(nn.Tanh)


def lenet_o() -> SampleNetwork:
    """LeNet-O of R-CONV: the last two convolutions have three filters each."""
    return _lenet(
        seed=3,
        filters=(12, 16, 3, 3),
        strides=(2, 2, 1, 1),
        activations=(_leaky_relu, _leaky_relu, nn.ReLU, nn.ReLU),
        classes=100,
    )


def cnn6_o() -> SampleNetwork:
    """CNN6-O of R-CONV: six convolutions, ReLU after four of them."""
    return _lenet(
        seed=17,
        filters=(12, 16, 3, 3, 3, 3),
        strides=(2, 2, 1, 1, 1, 1),
        activations=(_leaky_relu, _leaky_relu, nn.ReLU, nn.ReLU, nn.ReLU, nn.ReLU),
        classes=10,
    )


def lenet_4relu() -> SampleNetwork:
    """R-CONV's LeNet with ReLU everywhere but after the first convolution."""
    return _lenet(
        seed=29,
        filters=(12, 22, 3, 3),
        strides=(2, 2, 1, 1),
        activations=(_leaky_relu, nn.ReLU, nn.ReLU, nn.ReLU),
        classes=100,
    )


def lenet_allrelu() -> SampleNetwork:
    """R-CONV's LeNet with ReLU everywhere: a wide first convolution makes up for it."""
    return _lenet(
        seed=10,
        filters=(77, 22, 3, 3),
        strides=(2, 2, 1, 1),
        activations=(nn.ReLU, nn.ReLU, nn.ReLU, nn.ReLU),
        classes=100,
    )


def lenet_dlg() -> SampleNetwork:
    """LeNet of DLG: three convolutions with Sigmoid."""
    return _lenet(
        seed=7,
        filters=(12, 12, 12),
        strides=(2, 2, 1),
        activations=(nn.Sigmoid, nn.Sigmoid, nn.Sigmoid),
        classes=100,
    )


def cnn6() -> SampleNetwork:
    """CNN6 of R-GAP: no biases, one logit, logistic loss."""
    return _cnn6(seed=33, filters=(12, 36, 36, 36, 64, 128))


# --- networks in which something stays undetermined ----------------------------------------------


def cnn6_d() -> SampleNetwork:
    """CNN6-d of R-GAP: cnn6 with fewer filters in the second convolution (20 instead of 36)."""
    return _cnn6(seed=51, filters=(12, 20, 36, 36, 64, 128))


def lenet_underdetermined() -> SampleNetwork:
    """Four filters in the first convolution: 1324 equations for its 3072 unknowns."""
    return _lenet(
        seed=5,
        filters=(4, 12, 12, 3),
        strides=(2, 2, 1, 1),
        activations=(_leaky_relu, _leaky_relu, _leaky_relu, _leaky_relu),
        classes=100,
    )


def lenet_unread() -> SampleNetwork:
    """A first convolution that skips three pixels of four: kernel 1, stride 2."""
    return _lenet(
        seed=11,
        filters=(12, 16, 12, 3),
        strides=(2, 2, 1, 1),
        kernels=(1, 5, 5, 5),
        activations=(_leaky_relu, _leaky_relu, _leaky_relu, _leaky_relu),
        classes=100,
    )


def lenet_skipping() -> SampleNetwork:
    """lenet_unread with eight filters: 2072 equations for 3072 pixels fix every pixel it reads."""
    return _lenet(
        seed=1,
        filters=(8, 16, 12, 3),
        strides=(2, 2, 1, 1),
        kernels=(1, 5, 5, 5),
        activations=(_leaky_relu, _leaky_relu, _leaky_relu, _leaky_relu),
        classes=100,
    )


# --- dense networks ------------------------------------------------------------------------------


def tabular_mlp() -> SampleNetwork:
    """A dense network for records of 30 features."""
    return _mlp(seed=12, bias=True)


def mlp_nobias() -> SampleNetwork:
    """tabular_mlp without biases."""
    return _mlp(seed=13, bias=False)


NETWORKS: tuple[Callable[[], SampleNetwork], ...] = (
    lenet,
    lenet_main,
    lenet_main_leakyrelu,
    lenet_main_sigmoid,
    lenet_main_tanh,
    lenet_o,
    cnn6_o,
    lenet_4relu,
    lenet_allrelu,
    lenet_dlg,
    cnn6,
    cnn6_d,
    lenet_underdetermined,
    lenet_unread,
    lenet_skipping,
    tabular_mlp,
    mlp_nobias,
)


def _leaky_relu() -> nn.Module:
    return nn.LeakyReLU(0.2)


def _lenet_main(last: Callable[[], nn.Module]) -> SampleNetwork:
    return _lenet(
        seed=2,
        filters=(12, 16, 12, 3),
        strides=(2, 2, 1, 1),
        activations=(_leaky_relu, _leaky_relu, last, last),
        classes=100,
    )


def _lenet(
    *,
    seed: int,
    filters: Sequence[int],
    strides: Sequence[int],
    activations: Sequence[Callable[[], nn.Module]],
    classes: int,
    kernels: Sequence[int] | None = None,
) -> SampleNetwork:
    """Convolutions with padding kernel // 2, each with an activation, then a dense layer."""
    network = SampleNetwork()
    channels, size = IMAGE_SHAPE[1], IMAGE_SHAPE[2]
    kernels = kernels or [5] * len(filters)
    layers = zip(filters, strides, kernels, activations, strict=True)
    for number, (filter_count, stride, kernel, activation) in enumerate(layers, start=1):
        convolution = nn.Conv2d(
            channels, filter_count, kernel, stride=stride, padding=kernel // 2, device="meta"
        )
        network.add_module(f"conv{number}", convolution)
        network.add_module(f"act{number}", activation())
        channels, size = filter_count, (size - 1) // stride + 1
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc1", nn.Linear(channels * size**2, classes, device="meta"))
    return _initialise(network, IMAGE_SHAPE, seed)


def _cnn6(*, seed: int, filters: Sequence[int]) -> SampleNetwork:
    network = SampleNetwork()
    channels = IMAGE_SHAPE[1]
    geometry = ((4, 2, 2), (3, 2, 1), (3, 1, 1), (3, 1, 1), (3, 2, 1), (3, 1, 1))
    layers = zip(filters, geometry, strict=True)
    for number, (filter_count, (kernel, stride, padding)) in enumerate(layers, start=1):
        convolution = nn.Conv2d(
            channels, filter_count, kernel, stride, padding, bias=False, device="meta"
        )
        network.add_module(f"conv{number}", convolution)
        network.add_module(f"act{number}", _leaky_relu())
        channels = filter_count
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc1", nn.Linear(channels * 5**2, 1, bias=False, device="meta"))
    return _initialise(network, IMAGE_SHAPE, seed)


def _mlp(*, seed: int, bias: bool) -> SampleNetwork:
    network = SampleNetwork()
    network.add_module("fc1", nn.Linear(30, 64, bias=bias, device="meta"))
    network.add_module("act1", nn.ReLU())
    network.add_module("fc2", nn.Linear(64, 2, bias=bias, device="meta"))
    return _initialise(network, (1, 30), seed)


def _initialise(network: SampleNetwork, input_shape: tuple[int, ...], seed: int) -> SampleNetwork:
    # The layers come from the meta device: PyTorch's own initialisation, which this one replaces,
    # would draw from the global generator.
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.5, 0.5, generator=generator)
    network.input_shape = input_shape
    return network
