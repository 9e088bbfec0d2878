"""Compare our execution of an ONNX graph with onnxruntime before anything is built on it.

onnxruntime is native code that reads the file itself: it runs in a helper process, limited in
memory and time, and its crash is a comparison that failed.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from leakaudit.confirm.onnxruntime_helper import packed, unpacked
from leakaudit.errors import AuditError
from leakaudit.execute import run
from leakaudit.graph import Graph
from leakaudit.sandbox.helper import Helper, HelperDied, HelperFailed
from leakaudit.sandbox.limits import Limits

_RUNNER = "leakaudit.confirm.onnxruntime_helper"
_TOLERANCE = 1e-3


def check_against_onnxruntime(
    graph: Graph,
    path: str,
    weights: dict[str, Tensor],
    inputs: dict[str, Tensor],
    limits: Limits | None = None,
) -> float:
    """Run both on the same inputs.

    Args:
        graph: The network.
        path: Its file.
        weights: Its numbers.
        inputs: What to run it on.
        limits: Memory and time of onnxruntime; the defaults where left out.

    Returns:
        The largest difference of any output, relative to the output's largest value.

    Raises:
        AuditError: onnxruntime cannot run the file, or the outputs differ by more than 1e-3.
    """
    feeds = {name: x.cpu().numpy().astype(graph.tensors[name].dtype) for name, x in inputs.items()}
    outputs = [name.encode() for name in graph.outputs]
    count = str(len(outputs)).encode()
    request = [os.fsencode(path), count, *outputs, *packed(feeds.items())]
    try:
        with Helper(_RUNNER, ("numpy", "onnxruntime"), limits or Limits()) as helper:
            helper.send(request)
            values = _ours(graph, weights, feeds, inputs)  # onnxruntime is at work meanwhile
            reply = helper.receive()
    except (HelperFailed, HelperDied) as error:
        raise _cannot_run(path, str(error)) from error
    worst = 0.0
    for name, reference in zip(graph.outputs, _arrays(path, reply), strict=True):
        got = values[name].cpu().numpy().astype(np.float64)
        if got.shape != reference.shape:
            raise AuditError(
                path,
                f"output {name} has shape {got.shape} here and {reference.shape} in onnxruntime",
                "please report this as a bug",
            )
        scale = max(float(np.abs(reference).max()), 1e-30)
        # np.maximum keeps what is not a number; max() would drop it.
        worst = float(np.maximum(worst, np.abs(got - reference).max() / scale))
    if not worst <= _TOLERANCE:
        raise AuditError(
            path,
            f"our execution of the graph differs from onnxruntime's by {worst:.1e} of the output",
            "please report this as a bug; --no-confirm audits it statically",
        )
    return worst


def _arrays(path: str, reply: list[bytes]) -> list[np.ndarray]:
    try:
        return unpacked(reply)
    except (TypeError, ValueError) as error:
        raise _cannot_run(path, "its outputs are not plain tensors") from error


def _ours(
    graph: Graph,
    weights: dict[str, Tensor],
    feeds: dict[str, np.ndarray],
    inputs: dict[str, Tensor],
) -> dict[str, Tensor]:
    single = {name: w.float() if w.is_floating_point() else w for name, w in weights.items()}
    own = {name: torch.from_numpy(x).to(inputs[name].device) for name, x in feeds.items()}
    return dict(run(graph, single, own))


def _cannot_run(path: str, why: str) -> AuditError:
    return AuditError(
        path,
        f"onnxruntime cannot run it ({why})",
        "check the file with onnx.checker, raise a --limit, or audit it with --no-confirm",
    )
