"""Deep Leakage from Gradients (Zhu, Liu, Han, NeurIPS 2019, arXiv 1906.08935).

A dummy input and a dummy soft label are moved until the gradients that they give match the observed
ones: L-BFGS on D = sum over parameters of |dl/dp(dummy) - observed|², differentiated twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.bench.baselines.interface import AttackResult
from leakaudit.execute import run
from leakaudit.graph import Graph

# A start counts as failed, and the next one is made, where the matched gradients still differ by
# more than this share of the observed ones (in squares). The attacker can see that; not the error.
MATCHED = 1e-2


@dataclass(frozen=True, slots=True)
class Dlg:
    """DLG with the optimiser settings of its authors: lr 1, 20 inner iterations, history 100.

    Attributes:
        iterations: Outer iterations of each start, 300 in the paper.
        starts: Random starts at most; another is made only after one that failed.
        seed: Of the first start; the following ones count up.
        dtype: float32 as published, or float64.
    """

    iterations: int = 300
    starts: int = 3
    seed: int = 0
    dtype: torch.dtype = torch.float32
    name: str = "DLG"

    def attack(
        self,
        graph: Graph,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        loss: str,
    ) -> AttackResult:
        """Match the gradients; the start with the smallest gradient distance is returned.

        Raises:
            NotExecutable: The graph holds an operator that is not understood.
        """
        started = time.perf_counter()
        notes: list[str] = []
        iterations = 0
        best: tuple[float, Tensor] | None = None
        size = sum(float(g.double().square().sum()) for g in gradients.values())
        for number in range(self.starts):
            x, distance, done = self._start(graph, weights, gradients, loss, self.seed + number)
            iterations += done
            notes.append(
                f"start {number + 1} (seed {self.seed + number}): squared gradient distance "
                f"{distance:.1e}, observed {size:.1e}, after {done} iterations"
            )
            if math.isfinite(distance) and (best is None or distance < best[0]):
                best = (distance, x)
            if distance <= MATCHED * size:
                break
        seconds = time.perf_counter() - started
        if best is None:
            failure = f"all {self.starts} starts diverged"
            return AttackResult(None, seconds, iterations, tuple(notes), failure)
        return AttackResult(best[1].double(), seconds, iterations, tuple(notes))

    def _start(
        self,
        graph: Graph,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        loss: str,
        seed: int,
    ) -> tuple[Tensor, float, int]:
        """One random start: the dummy input, its gradient distance, the iterations made."""
        device = next(iter(gradients.values())).device
        generator = torch.Generator().manual_seed(seed)

        def dummy(name: str) -> Tensor:
            shape = graph.tensors[name].shape
            drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
            return drawn.to(device, self.dtype).requires_grad_(True)

        x, label = dummy(graph.inputs[0]), dummy(graph.outputs[0])
        parameters = {
            name: w.to(self.dtype) if w.is_floating_point() else w for name, w in weights.items()
        }
        for name in gradients:
            parameters[name] = parameters[name].detach().requires_grad_(True)
        observed = [g.to(self.dtype) for g in gradients.values()]
        trained = [parameters[name] for name in gradients]
        optimiser = torch.optim.LBFGS([x, label], lr=1.0, max_iter=20, history_size=100)

        def closure() -> Tensor:
            optimiser.zero_grad()
            z = run(graph, parameters, {graph.inputs[0]: x})[graph.outputs[0]]
            got = torch.autograd.grad(soft_loss(loss, z, label), trained, create_graph=True)
            distance = torch.stack(
                [(a - b).square().sum() for a, b in zip(got, observed, strict=True)]
            ).sum()
            # Only the dummies' gradients are wanted; backward() would also fill the parameters'.
            x.grad, label.grad = torch.autograd.grad(distance, [x, label])
            return distance

        before = x.detach().clone()
        done = 0
        while done < self.iterations:
            done += 1
            optimiser.step(closure)  # type: ignore[no-untyped-call]
            after = x.detach()
            # A step that moves nothing, or to no number, would be repeated for ever.
            if not bool(torch.isfinite(after).all()) or torch.equal(after, before):
                break
            before = after.clone()
        distance = float(closure().detach())
        return x.detach(), distance if math.isfinite(distance) else math.inf, done


def soft_loss(loss: str, z: Tensor, label: Tensor) -> Tensor:
    """The client's loss for a label that is itself unknown, as a differentiable function of it.

    Args:
        loss: `cross-entropy`, `bce` or `mse`.
        z: Network output (B, classes, ..).
        label: Free numbers of the same shape: logits of the label, or the target of a regression.
    """
    match loss:
        case "cross-entropy":
            return F.cross_entropy(z, label.softmax(dim=1))
        case "bce":
            return F.binary_cross_entropy_with_logits(z, label.sigmoid())
        case _:
            return F.mse_loss(z, label)
