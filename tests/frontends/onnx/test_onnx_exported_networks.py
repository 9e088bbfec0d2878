"""Whole networks as PyTorch exports them: nothing left out, the same outputs, parameters traced."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leakaudit.execute import run
from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.onnx.reader import load
from leakaudit.operators import Unsupported


class VisionTransformer(nn.Module):
    """Patches, class token, learned positions, one encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, 32))
        self.pos = nn.Parameter(torch.randn(1, 17, 32))
        self.encoder = nn.TransformerEncoderLayer(
            32, 4, 64, batch_first=True, activation="gelu", norm_first=True
        )
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(x.shape[0], -1, -1), tokens], 1) + self.pos
        y: Tensor = self.head(self.encoder(tokens)[:, 0])
        return y


class LanguageModel(nn.Module):
    """Embeddings, causal attention, a head that shares the table of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(50, 32), nn.Embedding(16, 32)
        self.norm, self.qkv = nn.LayerNorm(32), nn.Linear(32, 96)
        self.head = nn.Linear(32, 50, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        q, k, v = (
            part.view(1, -1, 4, 8).transpose(1, 2) for part in self.qkv(self.norm(x)).split(32, -1)
        )
        heads = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        y: Tensor = self.head(x + heads.transpose(1, 2).reshape(1, -1, 32))
        return y


class UNet(nn.Module):
    """Down and up again, by transposed convolution and by interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.down, self.up = nn.MaxPool2d(2), nn.ConvTranspose2d(8, 8, 2, 2)
        self.groups, self.out = nn.GroupNorm(2, 16), nn.Conv2d(16, 3, 1)
        self.resize = nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.norm(self.conv(x)))
        z = self.groups(torch.cat([y, self.up(self.down(y))], 1))
        z = self.out(self.resize(functional.avg_pool2d(z, 2)))
        return functional.hardswish(z).mean((2, 3))


IMAGE = torch.linspace(-1, 1, 3 * 16 * 16).sin().reshape(1, 3, 16, 16)
NETWORKS = {
    "vit": (VisionTransformer, IMAGE, {"pos": 1, "patch.weight": 1}),
    "gpt": (LanguageModel, torch.arange(9).reshape(1, 9) * 5, {"qkv.bias": 1}),
    "unet": (UNet, IMAGE, {"conv.weight": 1, "up.weight": 1, "out.bias": 1}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_exported_network(name: str, tmp_path: Path) -> None:
    make, x, uses = NETWORKS[name]
    torch.manual_seed(0)
    module, path = make().eval(), tmp_path / "net.onnx"
    torch.onnx.export(module, (x,), path, dynamo=True, verbose=False)
    graph = load(str(path), LoadOptions())
    assert [entry.op for entry in graph.nodes if isinstance(entry.op, Unsupported)] == []
    weights = {entry: torch.tensor(graph.weights.load(entry)) for entry in graph.parameters}
    values = run(graph, weights, {graph.inputs[0]: x})
    torch.testing.assert_close(values[graph.outputs[0]], module(x), rtol=1e-4, atol=1e-5)
    # The exporter stores a causal mask beside the weights.
    trained = [weights[e] for e, parameter in graph.parameters.items() if parameter.trainable]
    assert all(array.isfinite().all() for array in trained)
    for parameter, count in uses.items():
        assert graph.parameters[parameter].trainable
        assert graph.parameter_uses[parameter] == count
