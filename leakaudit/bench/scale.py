"""`bench scale`: what one convolution costs, by image size and by number of filters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from leakaudit.bench.layers import first_layer, median_seconds, timed_solve, training_pass
from leakaudit.bench.machine import environment
from leakaudit.bench.results_io import ResultFile, as_table
from leakaudit.equations.system import LayerSystem
from leakaudit.errors import UsageError
from leakaudit.solvers.interface import Solution
from leakaudit.solvers.matrix_free import MatrixFree
from leakaudit.solvers.solve import solve_layer

FILTERS, SIZE = 64, 64
KERNEL, STRIDE = 3, 1
Solver = Callable[[LayerSystem], Solution]
SERIES: dict[str, Solver] = {
    "as chosen": solve_layer,
    "matrix-free": MatrixFree().solve,
}
# The exponent is fitted where calling overhead no longer counts.
FIT_FROM = 10_000


def run_scale(
    sizes: Sequence[int],
    filters: Sequence[int],
    seed: int,
    output: Path | None,
    progress: Callable[[str], None],
) -> ResultFile:
    """Solve a first layer 3 -> F, k3 s1 p1, ReLU, float64, for every size and every F."""
    layer = {"channels": 3, "kernel": KERNEL, "stride": STRIDE, "activation": "ReLU"}
    settings = {"sizes": sizes, "filters": filters, "seed": seed, "layer": layer}
    results = ResultFile(output, "scale", environment(), settings)
    cases = [("size", size, FILTERS) for size in sizes]
    cases += [("filters", SIZE, count) for count in filters]
    for number, (sweep, size, count) in enumerate(cases):
        for name, solver in SERIES.items():
            progress(f"{name}: {size}x{size}, {count} filters")
            row = one_row(size, count, seed, solver, warm=number > 0)
            results.add({"sweep": sweep, "series": name, **row})
    results.finish({"exponents": exponents(results.rows), "fitted_from_unknowns": FIT_FROM})
    return results


def one_row(size: int, filters: int, seed: int, solver: Solver, *, warm: bool) -> dict[str, Any]:
    """Solve one layer; the first row of a process is solved twice, as a warm-up."""
    system, x = first_layer(size, filters, KERNEL, STRIDE, seed)
    if not warm:
        solver(system)
    row = timed_solve(system, x, solver)
    passes = median_seconds(lambda: training_pass(system, x), 3)
    return {"size": size, "filters": filters, **row, "training_passes": row["seconds"] / passes}


def exponents(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Per series the p of seconds ~ unknowns^p, by least squares in logarithms."""
    result = {}
    for name in SERIES:
        points = [
            (math.log(row["unknowns"]), math.log(row["seconds"]))
            for row in rows
            if (row["series"], row["sweep"]) == (name, "size") and row["unknowns"] >= FIT_FROM
        ]
        result[name] = slope(points)
    return result


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Slope of the least-squares line; None for fewer than two different abscissas."""
    if len({x for x, _ in points}) < 2:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    top = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return top / sum((x - mean_x) ** 2 for x, _ in points)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw cost against unknowns and against filters.

    Raises:
        UsageError: matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("the picture needs matplotlib: pip install 'leakaudit[bench]'") from error
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    fitted = exponents(rows)
    panels = (
        (left, "size", "unknowns", f"unknowns |X| (3 channels, {FILTERS} filters)"),
        (right, "filters", "filters", f"filters ({SIZE}x{SIZE} pixels)"),
    )
    for axes, sweep, key, label in panels:
        for name, marker in (("as chosen", "o"), ("matrix-free", "s")):
            points = [r for r in rows if (r["sweep"], r["series"]) == (sweep, name)]
            power = fitted[name] if sweep == "size" else None
            axes.plot(
                [r[key] for r in points],
                [r["seconds"] for r in points],
                marker=marker,
                fillstyle="none",
                label=name if power is None else f"{name}, n^{power:.2f} above {FIT_FROM}",
            )
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend()
    left.set_ylabel("seconds")
    figure.suptitle("Reconstructing the input of one convolution: k3 s1 p1, ReLU, float64")
    try:
        figure.savefig(path, dpi=120, format="png", metadata={"Software": "leakaudit"})
    except OSError as error:
        raise UsageError(f"--plot {path}: it cannot be written ({error.strerror})") from error


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The rows and the fitted exponents as text."""
    columns = (
        ("series", "{series}"),
        ("picture", "{size}x{size}"),
        ("filters", "{filters}"),
        ("unknowns", "{unknowns}"),
        ("solver", "{solver}"),
        ("iterations", "{iterations}"),
        ("seconds", "{seconds:.3f}"),
        ("training passes", "{training_passes:.1f}"),
        ("peak MiB", "{peak_mib:.0f}"),
        ("MSE", "{mse:.1e}"),
    )
    table = as_table(rows, columns)
    fits = [f"{name}: n^{p:.2f}" for name, p in exponents(rows).items() if p is not None]
    found = f"\nseconds against unknowns above {FIT_FROM}: {', '.join(fits)}\n" if fits else ""
    return f"{table}\n{found}"
