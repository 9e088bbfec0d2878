"""Compare our execution of an ONNX graph with onnxruntime before anything is built on it."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from leakaudit.errors import AuditError
from leakaudit.graph import Graph
from leakaudit.rconv.execute import run


def check_against_onnxruntime(
    graph: Graph, path: str, weights: dict[str, Tensor], inputs: dict[str, Tensor]
) -> float:
    """Run both on the same inputs.

    Returns:
        The largest difference of any output, relative to the output's largest value.

    Raises:
        AuditError: onnxruntime cannot run the file, or the outputs differ by more than 1e-3.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = (
        4  # its messages quote the file; what matters comes as an exception
    )
    feeds = {name: x.cpu().numpy().astype(graph.tensors[name].dtype) for name, x in inputs.items()}
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        expected = session.run(list(graph.outputs), feeds)
    except Exception as error:  # onnxruntime's own exception types share no public base
        raise AuditError(
            path,
            f"onnxruntime cannot run it ({type(error).__name__})",
            "check the file with onnx.checker, or audit it with --no-confirm",
        ) from error
    single = {name: w.float() if w.is_floating_point() else w for name, w in weights.items()}
    values = run(
        graph,
        single,
        {name: torch.from_numpy(x).to(inputs[name].device) for name, x in feeds.items()},
    )
    worst = 0.0
    for name, reference in zip(graph.outputs, expected, strict=True):
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
    if not worst <= 1e-3:
        raise AuditError(
            path,
            f"our execution of the graph differs from onnxruntime's by {worst:.1e} of the output",
            "please report this as a bug; --no-confirm audits it statically",
        )
    return worst
