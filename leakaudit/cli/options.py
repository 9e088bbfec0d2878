"""Options that several commands take, and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from leakaudit.frontends.interface import LoadOptions
from leakaudit.pipeline.choices import GRADIENT_DTYPES, LOSSES
from leakaudit.report import REPORTERS
from leakaudit.sandbox.limits import parse_limits

Decorator = Callable[[Callable[..., None]], Callable[..., None]]
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


class Shape(click.ParamType[tuple[str, tuple[int, ...]]]):
    """`1,3,32,32`, or `name=1,3,32,32` for one of several inputs."""

    name = "shape"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        if isinstance(value, tuple):
            return value
        name, equals, sizes = str(value).rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.replace("x", ",").split(","))
        except ValueError:
            self.fail(f"{value!r} is not a shape: write sizes like 1,3,32,32", param, ctx)
        if not shape or min(shape) < 1:
            self.fail(f"{value!r} is not a shape: every size is at least 1", param, ctx)
        return (name if equals else "", shape)


class Jobs(click.ParamType[int]):
    """A number of processes; 0 or `auto` for one per core, which stays 0."""

    name = "jobs"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "auto":
            return 0
        try:
            jobs = int(value)
        except ValueError:
            jobs = -1
        if jobs < 0:
            self.fail(f"{value!r} is not a number of jobs: write 1, 2, ... or auto", param, ctx)
        return jobs


class Number(click.FloatRange):
    """A number in a range. Comparisons never place nan outside of one."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number


class ReportFile(click.ParamType[tuple[str, Path]]):
    """`sarif=leakaudit.sarif`: a format and the file that receives it."""

    name = "report"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path]:
        if isinstance(value, tuple):
            return value
        file_format, _, file = str(value).partition("=")
        if file_format not in REPORTERS:
            self.fail(f"{value!r} names no format: write one of {', '.join(REPORTERS)}", param, ctx)
        if not file:
            self.fail(f"{value!r} names no file: write {file_format}=FILE", param, ctx)
        return file_format, Path(file)


def choice(name: str, words: Iterable[str], default: str, text: str, to: str = "") -> Decorator:
    """An option that takes one of these words, as the parameter `to` [default: its own name]."""
    names = (name, to) if to else (name,)
    return click.option(*names, type=click.Choice(list(words)), default=default, help=text)


def shared(*names: str, **helps: str) -> Decorator:
    """Options that several commands take, in the order in which the help lists them.

    `helps` is the help of those whose part in this command is another than in `check`.
    """
    options: dict[str, Decorator] = {
        "input_shape": click.option(
            "--input-shape",
            "input_shapes",
            type=Shape(),
            multiple=True,
            metavar="[NAME=]SIZES",
            help="Shape where the file leaves it open, e.g. 1,3,32,32; repeat for several inputs.",
        ),
        "batch_size": click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            metavar="N",
            help="Examples per shared gradient [default: what the file fixes, or 1].",
        ),
        "frozen": click.option(
            "--frozen",
            multiple=True,
            metavar="PATTERN",
            help="Parameters that are not trained and send no gradient, e.g. 'encoder.*'.",
        ),
        "limit": click.option(
            "--limit",
            "limits",
            multiple=True,
            metavar="NAME=VALUE",
            help="What a model file may cost, e.g. memory_bytes=16GiB; SECURITY.md lists them.",
        ),
        "loss": choice(
            "--loss", LOSSES, "auto", "Training loss; auto: bce for one output, else cross-entropy."
        ),
        "gradient_dtype": choice(
            "--gradient-dtype",
            GRADIENT_DTYPES,
            "float32",
            "Precision in which the client sends its gradient.",
        ),
        "seed": click.option(
            "--seed",
            type=click.IntRange(min=0),
            metavar="N",
            default=0,
            help=helps.get("seed", "Seed of the synthetic probe and of whatever else is drawn."),
        ),
        "time_budget": click.option(
            "--time-budget",
            type=Number(min=0),
            metavar="SECONDS",
            default=120,
            help=helps.get(
                "time_budget",
                "Per model, to confirm; a layer whose local confirmation would not fit is not run.",
            ),
        ),
        "rules": click.option(
            "--rules",
            "rule_folders",
            type=click.Path(path_type=Path),
            multiple=True,
            metavar="DIR",
            help="Folder with further rules (*.toml).",
        ),
        "jobs": click.option(
            "-j",
            "--jobs",
            type=Jobs(),
            default="1",
            metavar="N",
            help="Audits at a time, in processes that share the cores; 0 or auto: one per core.",
        ),
        "cluster": click.option(
            "--cluster",
            metavar="ADDRESS",
            help="Run the audits on the Dask cluster of this scheduler, e.g. tcp://host:8786. Its "
            "workers need leakaudit and the same files at the same paths (shared file system).",
        ),
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            command = options[name](command)
        return command

    return decorate


def load_options(settings: dict[str, Any]) -> LoadOptions:
    """How to read a model, from the options `input_shape`, `batch_size`, `frozen` and `limit`."""
    return LoadOptions(
        input_shapes=dict(settings["input_shapes"]),
        batch_size=settings["batch_size"],
        frozen=settings["frozen"],
        limits=parse_limits(settings["limits"]),
    )
