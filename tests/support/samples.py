"""The sample models as the tests see them: loaded by path alone, as leakaudit loads them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import torch
from places import SAMPLES

NAMES = [
    "lenet",
    "lenet_main",
    "lenet_main_leakyrelu",
    "lenet_main_sigmoid",
    "lenet_main_tanh",
    "lenet_o",
    "cnn6_o",
    "lenet_4relu",
    "lenet_allrelu",
    "lenet_dlg",
    "cnn6",
    "cnn6_d",
    "lenet_underdetermined",
    "lenet_unread",
    "lenet_skipping",
    "tabular_mlp",
    "mlp_nobias",
]
BRANCHING = ["vit", "vit_sinusoidal", "resnet_leaky", "resnet_gap", "resnet_short"]
EXPORTED = ["lenet_main", "cnn6", "cnn6_d", "tabular_mlp", *BRANCHING]


def module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


networks = module_at(SAMPLES / "networks.py")
branching = module_at(SAMPLES / "branching.py")


def network_of(name: str):
    return getattr(branching if name in BRANCHING else networks, name)()


def probes(name: str) -> list[torch.Tensor]:
    """A noise image and a smooth, dark one; records of 30 features for the dense networks."""
    shape = network_of(name).input_shape
    generator = torch.Generator().manual_seed(20)
    noise = torch.rand(shape, generator=generator)
    if len(shape) == 2:
        return [noise, 2 * noise - 1]
    coarse = 0.5 * torch.rand((1, 3, 4, 4), generator=generator)
    return [noise, torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")]


def loss(output: torch.Tensor) -> torch.Tensor:
    if output.shape[1] == 1:
        return torch.nn.functional.binary_cross_entropy_with_logits(output, torch.zeros(1, 1))
    return torch.nn.functional.cross_entropy(output, torch.tensor([0]))
