"""Small networks as `nn.Sequential`, their graphs built by hand, and gradients by plain autograd.

The graph is written down from the modules here, and the client's step runs the module itself:
neither a frontend nor leakaudit's own execution or client takes part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from leakaudit import operators as ops
from leakaudit.graph import Graph, Node, Parameter, Tensor


class Atan(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.atan()


class Stored:
    """Weights held in memory."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def load(self, name: str) -> Any:
        return self.state[name]


ACTIVATIONS: dict[type[nn.Module], Callable[[Any], ops.Activation]] = {
    nn.ReLU: lambda m: ops.Relu(),
    nn.LeakyReLU: lambda m: ops.LeakyRelu(m.negative_slope),
    nn.PReLU: lambda m: ops.PRelu(),
    nn.ELU: lambda m: ops.Elu(m.alpha),
    nn.Sigmoid: lambda m: ops.Sigmoid(),
    nn.Tanh: lambda m: ops.Tanh(),
    nn.Softplus: lambda m: ops.Softplus(),
    nn.Identity: lambda m: ops.Identity(),
    nn.CELU: lambda m: ops.Celu(m.alpha),
    nn.SELU: lambda m: ops.Selu(),
    nn.Softsign: lambda m: ops.Softsign(),
    nn.Hardtanh: lambda m: ops.Clip(m.min_val, m.max_val),
    nn.ReLU6: lambda m: ops.Clip(0.0, 6.0),
    nn.Hardsigmoid: lambda m: ops.HardSigmoid(1 / 6, 0.5),
    nn.SiLU: lambda m: ops.Silu(),
    nn.GELU: lambda m: ops.Gelu(),
    nn.Mish: lambda m: ops.Mish(),
    nn.Hardswish: lambda m: ops.HardSwish(),
    Atan: lambda m: ops.ArcTan(),
}


def network(*modules: nn.Module, seed: int = 0, scale: float = 0.5) -> nn.Sequential:
    """The modules in float64, weights uniform in ±scale; PReLU slopes keep their own."""
    model = nn.Sequential(*modules).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for module in model:
        if not isinstance(module, nn.PReLU):
            for parameter in module.parameters(recurse=False):
                value = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.data = scale * (2 * value - 1)
    return model


def graph_of(model: nn.Sequential, shape: tuple[int, ...], dtype: str = "float64") -> Graph:
    """The graph of a sequential network for inputs of this shape."""
    x = torch.zeros(shape, dtype=torch.float64)
    tensors = {"input": Tensor("input", shape, dtype)}
    nodes: list[Node] = []
    current = "input"
    for number, module in enumerate(model):
        x = module(x)
        output = f"t{number}"
        tensors[output] = Tensor(output, tuple(x.shape), dtype)
        parameters = [
            ("slope" if isinstance(module, nn.PReLU) else role, f"{number}.{role}")
            for role, _ in module.named_parameters(recurse=False)
        ]
        nodes.append(Node(str(number), _operator(module), (current,), (output,), tuple(parameters)))
        current = output
    stored = {key: p.detach().numpy().astype(dtype) for key, p in model.named_parameters()}
    return Graph(
        "hand-built",
        "test",
        ("input",),
        (current,),
        tensors,
        {key: Parameter(key, value.shape, dtype, True) for key, value in stored.items()},
        tuple(nodes),
        Stored(stored),
    )


def _operator(module: nn.Module) -> ops.Operator:
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        padding = module.padding
        assert not isinstance(padding, str)
        return ops.Conv(
            module.kernel_size, module.stride, padding, padding, module.dilation, module.groups
        )
    if isinstance(module, nn.MaxPool2d):
        assert isinstance(module.kernel_size, int)
        assert isinstance(module.stride, int)
        kernel, stride = (module.kernel_size,) * 2, (module.stride,) * 2
        return ops.MaxPool(kernel, stride, (0, 0), (0, 0), (1, 1), ceil=False)
    if isinstance(module, nn.Linear):
        return ops.Linear(module.in_features, module.out_features)
    if isinstance(module, nn.Flatten):
        return ops.Reshape()
    return ACTIVATIONS[type(module)](module)


def probe(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """A random example in [0, 1]."""
    generator = torch.Generator().manual_seed(seed + 77)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def client_gradients(
    model: nn.Sequential, x: torch.Tensor, loss: str, dtype: torch.dtype = torch.float64
) -> dict[str, torch.Tensor]:
    """One training step of the client on the least likely label, in torch alone."""
    z = model(x)
    if loss == "cross-entropy":
        value = F.cross_entropy(z, z.detach().argmin(dim=1))
    elif loss == "bce":
        value = F.binary_cross_entropy_with_logits(z, (z.detach() < 0).double())
    else:
        value = F.mse_loss(z, torch.zeros_like(z))
    names, parameters = zip(*model.named_parameters(), strict=True)
    return {
        name: g.detach().to(dtype)
        for name, g in zip(names, torch.autograd.grad(value, parameters), strict=True)
    }


def weights_of(model: nn.Sequential) -> dict[str, torch.Tensor]:
    """What the server knows of the model."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}
