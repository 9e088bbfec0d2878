"""The input behind the end of a leak path, looked for by search: evidence where it is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from leakaudit.attack.reconstruct import Reconstruction
from leakaudit.attack.search.problem import NotTried
from leakaudit.attack.search.search import search_after
from leakaudit.confirm.client import SharedGradient
from leakaudit.confirm.probes import is_image_shape
from leakaudit.confirm.recovered import RecoveredTensor
from leakaudit.findings import Confirmation, Scope, Status, StopKind
from leakaudit.leakpath.path import LeakPath

# A search that succeeds takes seconds; one that has not after this long hardly will.
SEARCH_SECONDS = 20.0


def searched(
    base: Confirmation,
    path: LeakPath,
    weights: Mapping[str, Tensor],
    result: Reconstruction,
    shared: SharedGradient,
    seconds: float,
) -> tuple[Confirmation | None, Tensor | None, str]:
    """Search for the input, and judge what is found.

    Args:
        base: What is common to all confirmations of this run.
        path: The leak path, which stops before the input.
        weights: Every parameter by name, float64.
        result: What the replay of the path recovered.
        shared: The gradients, and the truth that a found input is judged by.
        seconds: How long it may take.

    Returns:
        The confirmation and the picture (N, H, W), None where the input was not found, and what was
        tried, in words.
    """
    graph = path.knowledge.graph
    unit = (0.0, 1.0) if is_image_shape(graph.tensors[graph.inputs[0]].shape) else None
    try:
        found = search_after(
            path,
            weights,
            shared.gradients,
            result,
            seconds=min(seconds, SEARCH_SECONDS),
            seed=base.seed or 0,
            value_range=unit,
        )
    except NotTried as why:
        return None, None, f"search behind the end of the path: not tried, {why}"
    if not found.recovered:
        none = "which is no evidence that it cannot be found"
        failed = f"search from {found.features} did not find the input ({found.reason}), {none}"
        return None, None, failed
    judged = RecoveredTensor(found.x).judge(shared.values[found.target])
    how = (
        f"the input, by nonlinear least squares from {found.features}, which is known exactly and "
        f"reproduced to {found.residual:.0e}"
    )
    status = Status.BY_SEARCH if judged.status is Status.CONFIRMED else judged.status
    judged = replace(judged, status=status, reason=how, solver="search", attempts=found.attempts)
    given = judged.confirmation(replace(base, seconds=found.seconds), Scope.END_TO_END)
    return given, judged.picture, how


def may_go_on(path: LeakPath) -> bool:
    """Whether the path stops where this version follows it no further, and no count says why."""
    return any(stop.kind is StopKind.NOT_FOLLOWED for stop in path.report.stopped)
