"""The client: runs the network on a private example and shares the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.errors import UsageError
from leakaudit.execute import run
from leakaudit.graph import Graph

GRADIENT_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def choose_device(name: str) -> torch.device:
    """The device that confirmation runs on; `auto` takes CUDA where there is one.

    Raises:
        UsageError: CUDA was asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        built = "no GPU is visible" if torch.version.cuda else "this torch is built without CUDA"
        raise UsageError(f"--device cuda: {built}; use --device cpu or auto")
    return torch.device(name)


@dataclass(frozen=True, slots=True)
class SharedGradient:
    """What one training step leaves behind.

    Attributes:
        gradients: What is sent: dl/dp of every trainable parameter, in the gradient's dtype.
        values: Every activation, float64. Never sent; the truth a reconstruction is compared with.
        activation_gradients: dl/dt of every activation, float64. Never sent; local confirmation
            uses them, and says so.
    """

    gradients: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    activation_gradients: Mapping[str, Tensor]


def share_gradient(
    graph: Graph,
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    loss: str,
    dtype: torch.dtype,
    seed: int,
) -> SharedGradient:
    """One step of the client.

    float64 and float32 gradients come from training in that precision; bfloat16 and float16 ones
    from training in float32 and rounding what is sent, as gradient compression does.

    Args:
        graph: The network, in evaluation mode.
        weights: Every parameter by name.
        inputs: Every graph input by name.
        loss: One of the losses of the threat model.
        dtype: Of the gradients sent.
        seed: For regression targets.

    Raises:
        NotExecutable: The graph holds an operator that is not understood.
    """
    compute = torch.float64 if dtype is torch.float64 else torch.float32

    def cast(x: Tensor) -> Tensor:
        return x.to(compute) if x.is_floating_point() else x

    trainable = [name for name, parameter in graph.parameters.items() if parameter.trainable]
    parameters = {name: cast(w).detach().clone() for name, w in weights.items()}
    for name in trainable:
        parameters[name].requires_grad_(True)
    leaves = {
        name: cast(x).detach().clone().requires_grad_(x.is_floating_point())
        for name, x in inputs.items()
    }
    values = run(graph, parameters, leaves)
    z = values[graph.outputs[0]]
    target = worst_case_target(loss, z, torch.Generator().manual_seed(seed))
    tensors = [name for name, x in values.items() if x.requires_grad]
    results = torch.autograd.grad(
        loss_value(loss, z, target),
        [parameters[name] for name in trainable] + [values[name] for name in tensors],
        allow_unused=True,
    )
    sent = {
        name: torch.zeros_like(parameters[name]) if g is None else g
        for name, g in zip(trainable, results, strict=False)
    }
    inner = {
        name: g.double()
        for name, g in zip(tensors, results[len(trainable) :], strict=True)
        if g is not None
    }
    return SharedGradient(
        gradients={name: g.to(dtype) for name, g in sent.items()},
        values={
            name: x.detach().double() if x.is_floating_point() else x for name, x in values.items()
        },
        activation_gradients=inner,
    )


def worst_case_target(loss: str, z: Tensor, generator: torch.Generator) -> Tensor:
    """The target of the probe: the class that the network finds least likely.

    It gives the largest gradient, which is the worst case for privacy; an example that the network
    already classifies with certainty has a gradient of 0 and leaks nothing.

    Args:
        loss: `cross-entropy`, `bce` or `mse`.
        z: Network output (B, classes, ..).
        generator: Seeded, for the targets of a regression.
    """
    if loss == "cross-entropy":
        return z.detach().argmin(dim=1)
    if loss == "bce":
        return (z.detach() < 0).to(z.dtype)
    return torch.rand(z.shape, generator=generator, dtype=torch.float64).to(z)


def loss_value(loss: str, z: Tensor, target: Tensor) -> Tensor:
    """The mean loss over the batch, as torch defines it; z (B, classes, ..)."""
    if loss == "cross-entropy":
        return F.cross_entropy(z, target)
    if loss == "bce":
        return F.binary_cross_entropy_with_logits(z, target)
    return F.mse_loss(z, target)
