"""`bench solve`: the solvers against dense least squares, and against training the layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leakaudit.attack.reconstruct import reconstruct
from leakaudit.bench.baselines.dense_rows import convolution_rows
from leakaudit.bench.layers import (
    first_layer,
    median_seconds,
    side_by_side,
    timed_solve,
    training_pass,
)
from leakaudit.bench.machine import environment, measure
from leakaudit.bench.results_io import ResultFile, as_table
from leakaudit.bench.table import load_network
from leakaudit.confirm.client import share_gradient
from leakaudit.confirm.confirm import load_weights
from leakaudit.confirm.metrics import mse
from leakaudit.confirm.probes import make_probe
from leakaudit.equations.convolution import convolution_of
from leakaudit.solvers.solve import solve_layer

# filters, kernel, stride, activation of the single layers: VGG's first, ResNet's, AlexNet's. Behind
# a ReLU the last one has fewer equations than unknowns; behind a LeakyReLU it has enough.
LAYERS = ((64, 3, 1, "ReLU"), (64, 7, 2, "ReLU"), (64, 11, 4, "LeakyReLU"))
NETWORK = "lenet_main"
SMALL = 64  # pixels, of the solve that warms up


def run_solve(
    models: Path, size: int, repeats: int, output: Path | None, progress: Callable[[str], None]
) -> ResultFile:
    """Run all comparisons, each side of a ratio in the same process.

    Raises:
        UsageError: The reference network is missing.
    """
    settings = {"size": size, "repeats": repeats}
    results = ResultFile(output, "solve", environment(), settings)
    progress(f"{NETWORK}: reconstruction and dense least squares")
    results.add(whole_network(models, repeats))
    for filters, kernel, stride, activation in LAYERS:
        progress(f"3 -> {filters}, k{kernel} s{stride}, {activation}, {size}x{size}")
        results.add(one_layer(size, filters, kernel, stride, activation))
    results.finish()
    return results


def whole_network(models: Path, repeats: int) -> dict[str, Any]:
    """The whole reconstruction against one torch.linalg.lstsq of the first layer's equations."""
    graph = load_network(models, NETWORK)
    weights = load_weights(graph, torch.device("cpu"))
    (name,) = graph.inputs
    x = make_probe(graph.tensors[name].shape, 0).values
    shared = share_gradient(graph, weights, {name: x}, "cross-entropy", torch.float64, 0)
    result, measured = measure(
        lambda: reconstruct(graph, weights, shared.gradients, "cross-entropy")
    )
    node = graph.nodes[0]
    op = convolution_of(graph, node).op
    weight, bias = node.parameter("weight") or "", node.parameter("bias") or ""
    (out,) = node.outputs
    S = convolution_rows(
        op,
        tuple(x.shape),
        weights[weight],
        shared.activation_gradients[out],
        padding_constraints=False,
    )
    o = shared.values[out] - weights[bias].reshape(1, -1, 1, 1)
    rhs = torch.cat([o.reshape(-1), shared.gradients[weight].reshape(-1)])[:, None]
    seconds, gelsy, gels = side_by_side(
        [
            lambda: reconstruct(graph, weights, shared.gradients, "cross-entropy"),
            partial(_lstsq, S, rhs, "gelsy"),
            partial(_lstsq, S, rhs, "gels"),
        ],
        repeats,
    )
    return {
        "case": f"{NETWORK}, end to end, float64 gradients",
        "seconds": seconds,
        "peak_bytes": measured.peak_bytes,
        "mse": mse(result.values[name].tensor, x) if name in result.values else None,
        "system": list(S.shape),
        "reference": "torch.linalg.lstsq of the first layer's stacked system (its default, gelsy)",
        "reference_seconds": gelsy,
        "reference_seconds_without_rank": gels,
        "ratio": gelsy / seconds,
        "ratio_means": "times faster than the reference",
    }


def one_layer(size: int, filters: int, kernel: int, stride: int, activation: str) -> dict[str, Any]:
    """One solve of a layer against one forward and backward pass, in time and memory."""
    system, x = first_layer(size, filters, kernel, stride, 0, activation)
    passes = median_seconds(lambda: training_pass(system, x), 5)
    # What libraries set up once per process is no part of a solve.
    solve_layer(first_layer(SMALL, filters, kernel, stride, 0, activation)[0])
    solved = timed_solve(system, x, solve_layer)
    held = sum(t.nbytes for t in (x, system.o, system.G) if t is not None)
    peak = solved["peak_bytes"]
    return {
        "case": f"3 -> {filters}, k{kernel} s{stride}, {activation}, {size}x{size}, float64",
        **solved,
        "reference": "one forward and backward pass of the layer",
        "reference_seconds": passes,
        "ratio": solved["seconds"] / passes,
        "ratio_means": "passes that the solve takes",
        "input_output_gradient_bytes": held,
        "memory_ratio": None if peak is None else peak / held,
    }


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text."""
    columns = (
        ("case", "{case}"),
        ("seconds", "{seconds:.3f}"),
        ("reference s", "{reference_seconds:.3f}"),
        ("ratio", "{ratio:.1f} {ratio_means}"),
        ("peak MiB", "{peak_mib:.0f}"),
        ("memory ratio", "{memory_ratio:.2f}"),
        ("MSE", "{mse:.1e}"),
    )
    table = as_table(({"memory_ratio": None, **row} for row in rows), columns)
    return (
        f"{table}\n\nMemory ratio: what the solve takes beyond what it is given, over the layer's "
        "input, output and\noutput gradient together.\n"
    )


def _lstsq(S: Tensor, rhs: Tensor, driver: str) -> Tensor:
    solution: Tensor = torch.linalg.lstsq(S, rhs, driver=driver).solution
    return solution
