"""The commands of `leakaudit bench`. What they measure is imported when they run, torch with it."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from leakaudit.cli.options import FILE, FOLDER, Decorator, choice, shared
from leakaudit.errors import INTERRUPTED, UsageError

METHODS = ("rconv", "dlg", "rgap")
NETWORKS = ("lenet_main", "lenet_dlg", "cnn6")
DATASETS = ("cifar100", "cifar10", "mnist", "photographs")
DTYPES = ("float32", "float64")


class Names(click.ParamType[tuple[str, ...]]):
    """Names separated by commas; `known` names are the only ones where it is not empty."""

    name = "names"

    def __init__(self, known: tuple[str, ...] = ()) -> None:
        self.known = known

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(part.strip() for part in str(value).split(",") if part.strip())
        for name in names:
            if self.known and name not in self.known:
                self.fail(f"{name!r} is none of {', '.join(self.known)}", param, ctx)
        if not names:
            self.fail("name at least one", param, ctx)
        return names


def output_option(default: str) -> Decorator:
    """`--output FILE` for the JSON results."""
    return click.option(
        "-o",
        "--output",
        type=FILE,
        default=default,
        help="JSON file with the results, written after every finished row.",
    )


models_option = click.option(
    "--models",
    type=FOLDER,
    default="sample_models",
    help="Folder with the reference networks (NAME.onnx).",
)
seed_option = click.option("--seed", type=click.IntRange(min=0), default=0)


@click.group()
def bench() -> None:
    """Measure accuracy, time and memory, against other methods.

    The times are those of this machine. Needs the extra `bench`.
    """
    if find_spec("torch") is None:
        raise UsageError("bench needs torch: pip install 'leakaudit[bench]'")


@bench.command()
@click.option("--images", type=click.IntRange(min=1), default=2)
@click.option("--networks", type=Names(), default=",".join(NETWORKS))
@click.option("--datasets", type=Names(DATASETS), default="cifar100")
@click.option("--methods", type=Names(METHODS), default=",".join(METHODS))
@click.option("--iterations", type=click.IntRange(min=1), default=300, help="Of each start of DLG.")
@click.option(
    "--starts",
    type=click.IntRange(min=1),
    default=3,
    help="Of DLG, at most; another is made only after one that failed.",
)
@shared("gradient_dtype")
@choice(
    "--dtype", DTYPES, "float32", "Precision in which DLG and R-GAP compute; as published: float32."
)
@seed_option
@models_option
@output_option("bench-table.json")
def table(output: Path, **settings: Any) -> None:
    """R-CONV, DLG and R-GAP side by side on the reference networks.

    Interrupted with Ctrl-C it shows the rows finished until then, which are also in the file.
    """
    from leakaudit.bench import results_io, table as run

    options = run.TableOptions(**settings)
    try:
        rows = run.run_table(options, output, _progress).rows
    except KeyboardInterrupt:
        click.echo(f"leakaudit: interrupted; finished rows are in {output}", err=True)
        click.echo(run.render(results_io.read_rows(output)), nl=False)
        sys.exit(INTERRUPTED)
    click.echo(run.render(rows), nl=False)


@bench.command()
@click.option(
    "--sizes",
    type=Names(),
    default="16,24,32,48,64,96,128,160,192,224",
    help="Image sizes, at 64 filters.",
)
@click.option(
    "--filters", type=Names(), default="16,32,64,128", help="Filter counts, at 64x64 pixels."
)
@seed_option
@click.option(
    "--plot", type=FILE, default="bench-scale.png", help="Picture of cost against unknowns."
)
@output_option("bench-scale.json")
def scale(
    sizes: tuple[str, ...], filters: tuple[str, ...], seed: int, plot: Path, output: Path
) -> None:
    """Cost of one convolution against its unknowns (3 channels, k3 s1 p1, ReLU, float64)."""
    from leakaudit.bench import scale as run

    results = run.run_scale(_integers(sizes), _integers(filters), seed, output, _progress)
    run.plot(results.rows, plot)
    click.echo(run.render(results.rows), nl=False)


@bench.command()
@click.option("--repeats", type=click.IntRange(min=1), default=5)
@models_option
@output_option("bench-audit.json")
def audit(repeats: int, models: Path, output: Path) -> None:
    """Time audits of a model file, as the command line runs them, against bare imports."""
    from leakaudit.bench import audit_time as run

    results = run.run_audit(models, repeats, output, _progress)
    click.echo(run.render(results.rows), nl=False)


@bench.command()
@click.option("--repeats", type=click.IntRange(min=1), default=3)
@click.option(
    "--size", type=click.IntRange(min=16), default=224, help="Image size of the single layers."
)
@models_option
@output_option("bench-solve.json")
def solve(repeats: int, size: int, models: Path, output: Path) -> None:
    """Time the solvers against a dense least-squares solve and against training the layer."""
    from leakaudit.bench import solve_time as run

    results = run.run_solve(models, size, repeats, output, _progress)
    click.echo(run.render(results.rows), nl=False)


def _integers(texts: tuple[str, ...]) -> tuple[int, ...]:
    numbers = tuple(int(text) for text in texts if text.isdecimal())
    if len(numbers) != len(texts) or min(numbers) < 1:
        raise UsageError(f"{','.join(texts)}: sizes and filter counts are positive integers")
    return numbers


def _progress(text: str) -> None:
    click.echo(text, err=True)
