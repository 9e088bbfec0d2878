"""The pictures of `bench table`, read as files from two installed packages, which are not imported.

foolbox carries twenty samples each of CIFAR-100, CIFAR-10 and MNIST (label in the file name),
scikit-image carries photographs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from leakaudit.confirm.probes import load_probe
from leakaudit.errors import UsageError

DATASETS = ("cifar100", "cifar10", "mnist", "photographs")
# Photographs of everyday things among scikit-image's test data, which also holds textures and
# drawings; those in its wheel, none that it would download.
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
_SIZES = {"cifar100": "32x32x3", "cifar10": "32x32x3", "mnist": "28x28x1"}


@dataclass(frozen=True, slots=True)
class Picture:
    """One private example.

    Attributes:
        name: The file's name without its suffix.
        dataset: One of DATASETS.
        label: The class in its data set, None for a photograph.
        values: float64 in [0, 1], (1, N, H, W) as the network wants it.
        note: What was done to make it fit, empty where nothing was.
    """

    name: str
    dataset: str
    label: int | None
    values: Tensor
    note: str


def pictures(dataset: str, count: int, shape: tuple[int, ...]) -> tuple[Picture, ...]:
    """The first `count` pictures of a data set, at most those there are.

    Args:
        dataset: One of DATASETS.
        count: How many.
        shape: (1, N, H, W) that the network takes; others are resized by bicubic interpolation.

    Raises:
        UsageError: The package with the pictures is not installed.
        AuditError: A picture cannot be read.
    """
    if dataset == "photographs":
        folder = _package("skimage") / "data"
        files = [folder / name for name in PHOTOGRAPHS]
    else:
        folder = _package("foolbox") / "data"
        files = sorted(folder.glob(f"{dataset}_*.png"))
    files = [path for path in files if path.is_file()][:count]
    if not files:
        raise UsageError(f"no picture of {dataset} is installed: pip install 'leakaudit[bench]'")
    return tuple(_read(path, dataset, shape) for path in files)


def _read(path: Path, dataset: str, shape: tuple[int, ...]) -> Picture:
    wanted = f"{shape[3]}x{shape[2]}x{shape[1]}"
    note = ""
    if _SIZES.get(dataset) != wanted:
        note = f"resized from {_SIZES.get(dataset, 'a photograph')} to {wanted}"
    label = re.fullmatch(rf"{dataset}_\d+_(\d+)", path.stem)
    return Picture(
        name=path.stem,
        dataset=dataset,
        label=int(label[1]) if label else None,
        values=load_probe(path, shape).values,
        note=note,
    )


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise UsageError(f"{name} is not installed: pip install 'leakaudit[bench]'")
    return Path(spec.origin).parent
