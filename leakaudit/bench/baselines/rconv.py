"""R-CONV behind the interface of the comparison."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from leakaudit.attack.reconstruct import reconstruct
from leakaudit.bench.baselines.interface import AttackResult
from leakaudit.graph import Graph


@dataclass(frozen=True, slots=True)
class RConv:
    """`leakaudit.attack.reconstruct.reconstruct`, timed from the search for the path onwards."""

    name: str = "R-CONV"

    def attack(
        self,
        graph: Graph,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        loss: str,
    ) -> AttackResult:
        """Walk the leak path."""
        started = time.perf_counter()
        result = reconstruct(graph, weights, gradients, loss)
        seconds = time.perf_counter() - started
        notes = [
            f"{node}: {s.solver}, rank {'unknown' if s.rank is None else s.rank} of {s.unknowns}"
            for node, s in result.solutions.items()
        ]
        known = result.values.get(graph.inputs[0])
        failure = None
        if result.broken is not None:
            failure = str(result.broken)
        elif known is None:
            failure = "no leak path reaches the input"
        x = None if failure or known is None else known.tensor
        return AttackResult(x, seconds, 0, (*result.attempts, *notes), failure)
