"""`bench table`: R-CONV, DLG and R-GAP on the same networks and pictures, in one process."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leakaudit.bench.baselines.dlg import Dlg
from leakaudit.bench.baselines.interface import Attack
from leakaudit.bench.baselines.rconv import RConv
from leakaudit.bench.baselines.rgap import Rgap
from leakaudit.bench.data import Picture, pictures
from leakaudit.bench.machine import environment, measure
from leakaudit.bench.results_io import ResultFile, as_table
from leakaudit.confirm.client import GRADIENT_DTYPES, loss_value, worst_case_target
from leakaudit.confirm.confirm import load_weights
from leakaudit.confirm.metrics import mse, psnr, ssim
from leakaudit.errors import UsageError
from leakaudit.execute import run
from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.registry import load
from leakaudit.graph import Graph

# The published table's PSNR sets MAX = 255 for pixels in [0, 1]: 20·log10(255) dB more.
PUBLISHED_OFFSET = 48.1308
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What is compared on what.

    Attributes:
        models: Folder with the reference networks as `NAME.onnx`.
        networks: Their names.
        datasets: Names from `data.DATASETS`.
        methods: `rconv`, `dlg`, `rgap`.
        images: Pictures per data set.
        iterations: Of DLG.
        starts: Of DLG, at most.
        gradient_dtype: In which the client sends its gradient.
        dtype: In which DLG and R-GAP compute.
        seed: Of DLG's first start.
    """

    models: Path
    networks: tuple[str, ...]
    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    images: int
    iterations: int
    starts: int
    gradient_dtype: str
    dtype: str
    seed: int


def attacks(options: TableOptions) -> dict[str, Attack]:
    """The attackers by option name, R-CONV first: the others are compared with it."""
    dtype = GRADIENT_DTYPES[options.dtype]
    every: dict[str, Attack] = {
        "rconv": RConv(),
        "dlg": Dlg(options.iterations, options.starts, options.seed, dtype),
        "rgap": Rgap(dtype),
    }
    return {name: attack for name, attack in every.items() if name in options.methods}


def run_table(options: TableOptions, output: Path | None, progress: Progress) -> ResultFile:
    """Run every method on every picture of every network.

    A KeyboardInterrupt passes through; the rows finished until then are in the file.

    Raises:
        UsageError: A network or the pictures are missing.
    """
    settings = {
        "networks": options.networks,
        "datasets": options.datasets,
        "methods": options.methods,
        "images": options.images,
        "dlg_iterations": options.iterations,
        "dlg_starts": options.starts,
        "gradient_dtype": options.gradient_dtype,
        "baseline_dtype": options.dtype,
        "seed": options.seed,
    }
    graphs = {name: load_network(options.models, name) for name in options.networks}
    results = ResultFile(output, "table", environment(), settings)
    compared = attacks(options)
    warm = False
    for network, graph in graphs.items():
        weights = load_weights(graph, torch.device("cpu"))
        shape = graph.tensors[graph.inputs[0]].shape
        for dataset in options.datasets:
            for picture in pictures(dataset, options.images, shape):
                gradients, loss, target = client(graph, weights, picture, options.gradient_dtype)
                if not warm:
                    # The first solve of a process starts torch's threads and libraries, which is
                    # no part of what is compared.
                    RConv().attack(graph, weights, gradients, loss)
                    warm = True
                for attack in compared.values():
                    progress(f"{network}, {picture.name}: {attack.name}")
                    row = one_row(graph, weights, gradients, loss, attack, picture)
                    results.add({"network": network, **row, "target": target})
                    progress(f"{network}, {picture.name}: {attack.name}: {_brief(row)}")
    results.finish(summary(results.rows))
    return results


def client(
    graph: Graph, weights: dict[str, Tensor], picture: Picture, dtype: str
) -> tuple[dict[str, Tensor], str, str]:
    """The client's step: the gradients it sends, its loss, and which label it trained on.

    The label is the picture's own where the network has its class. Otherwise, and where the network
    is so sure of it already that the gradient vanishes, it is the least likely class.
    """
    compute = torch.float64 if dtype == "float64" else torch.float32
    parameters = {
        name: w.to(compute, copy=True).requires_grad_(True) if w.is_floating_point() else w
        for name, w in weights.items()
    }
    values = run(graph, parameters, {graph.inputs[0]: picture.values.to(compute)})
    z = values[graph.outputs[0]]
    loss = "bce" if z.shape[1] == 1 else "cross-entropy"
    target = worst_case_target(loss, z, torch.Generator().manual_seed(0))
    said = "least likely class"
    classes = {"cifar100": 100, "cifar10": 10, "mnist": 10}.get(picture.dataset)
    if loss == "cross-entropy" and picture.label is not None and classes == z.shape[1]:
        own = torch.full_like(target, picture.label)
        # 1 - p of the label, without the rounding of a p near 1.
        doubt = -torch.expm1(-loss_value(loss, z.detach().double(), own))
        if float(doubt) > 1e-3:
            target, said = own, f"label {picture.label}"
    names = [name for name, parameter in graph.parameters.items() if parameter.trainable]
    sent = torch.autograd.grad(loss_value(loss, z, target), [parameters[name] for name in names])
    kind = GRADIENT_DTYPES[dtype]
    return {name: g.to(kind) for name, g in zip(names, sent, strict=True)}, loss, said


def one_row(
    graph: Graph,
    weights: dict[str, Tensor],
    gradients: dict[str, Tensor],
    loss: str,
    attack: Attack,
    picture: Picture,
) -> dict[str, Any]:
    """Run one attack and compare what it returns with the picture."""
    result, measured = measure(lambda: attack.attack(graph, weights, gradients, loss))
    row: dict[str, Any] = {
        "dataset": picture.dataset,
        "picture": picture.name,
        "picture_note": picture.note,
        "method": attack.name,
        "seconds": result.seconds,
        "peak_bytes": measured.peak_bytes,
        "iterations": result.iterations,
        "mse": None,
        "psnr": None,
        "psnr_published_convention": None,
        "ssim": None,
        "failure": result.failure,
        "notes": list(result.notes),
    }
    if result.x is not None:
        error = mse(result.x, picture.values)
        row |= {
            "mse": error,
            "psnr": psnr(error),
            "psnr_published_convention": psnr(error) + PUBLISHED_OFFSET,
            "ssim": ssim(result.x, picture.values),
        }
    return row


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per network and method: medians over the pictures, and ratios to R-CONV on the same ones."""
    result = []
    keys = dict.fromkeys((row["network"], row["method"]) for row in rows)
    for network, method in keys:
        of_method = [r for r in rows if (r["network"], r["method"]) == (network, method)]
        done = [r for r in of_method if r["failure"] is None]
        reference = {
            r["picture"]: r
            for r in rows
            if (r["network"], r["method"]) == (network, "R-CONV") and r["failure"] is None
        }
        pairs = [(r, reference[r["picture"]]) for r in done if r["picture"] in reference]
        entry: dict[str, Any] = {
            "network": network,
            "method": method,
            "pictures": len(of_method),
            "failed": len(of_method) - len(done),
        }
        for key in ("mse", "psnr", "psnr_published_convention", "ssim", "seconds", "peak_bytes"):
            numbers = [r[key] for r in done if r[key] is not None]
            entry[key] = statistics.median(numbers) if numbers else None
        for key in ("seconds", "mse", "peak_bytes"):
            ratios = [a[key] / b[key] for a, b in pairs if a[key] is not None and b[key]]
            entry[f"{key}_ratio"] = statistics.median(ratios) if ratios else None
        entry["failure"] = of_method[0]["failure"] if not done else None
        result.append(entry)
    return result


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The summary as text for people."""
    entries, failures = [], []
    for entry in summary(rows):
        entry["ran"] = f"{entry['pictures'] - entry['failed']}/{entry['pictures']}"
        if entry["failure"] is not None:
            failures.append(f"{entry['network']}, {entry['method']}: {entry['failure']}\n")
            entry = {key: entry[key] for key in ("network", "method", "ran")}
        entries.append(entry)
    columns = (
        ("network", "{network}"),
        ("method", "{method}"),
        ("ran", "{ran}"),
        ("MSE", "{mse:.1e}"),
        ("PSNR", "{psnr:.1f}"),
        ("PSNR (255)", "{psnr_published_convention:.1f}"),
        ("SSIM", "{ssim:.3f}"),
        ("seconds", "{seconds:.2f}"),
        ("peak MiB", "{peak_mib:.0f}"),
        ("time ratio", "{seconds_ratio:.3g}"),
        ("MSE ratio", "{mse_ratio:.3g}"),
    )
    table = as_table(entries, columns)
    return (
        f"{table}\n\n{''.join(failures)}"
        "Medians over the pictures; ratios are to R-CONV on the same picture. PSNR in dB for "
        "MAX = 1;\nPSNR (255) takes MAX = 255 for pixels in [0, 1], as the published table does "
        "(+48.13 dB).\n"
    )


def _brief(row: dict[str, Any]) -> str:
    outcome = row["failure"] or f"MSE {row['mse']:.1e}"
    return f"{outcome}, {row['seconds']:.2f} s"


def load_network(folder: Path, name: str) -> Graph:
    """Read a reference network.

    Raises:
        UsageError: It is not there.
    """
    path = folder / f"{name}.onnx"
    if not path.is_file():
        raise UsageError(
            f"{path}: there is no such network; --models names the folder with the reference "
            "networks (sample_models of the repository)"
        )
    return load(str(path), LoadOptions())
