"""The pictures of the published table, where the packages that carry them are installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

torch = pytest.importorskip("torch")

from leakaudit.bench import data
from leakaudit.errors import UsageError

SHAPE = (1, 3, 32, 32)
installed = pytest.mark.skipif(
    find_spec("foolbox") is None or find_spec("skimage") is None, reason="the extra bench"
)


@installed
@pytest.mark.parametrize("dataset", data.DATASETS)
def test_they_are_pictures_of_the_networks_size(dataset: str) -> None:
    found = data.pictures(dataset, 3, SHAPE)
    assert len(found) == 3
    assert len({picture.name for picture in found}) == 3
    for picture in found:
        assert tuple(picture.values.shape) == SHAPE
        assert 0 <= float(picture.values.min()) < 0.5 < float(picture.values.max()) <= 1
        assert (picture.label is None) == (dataset == "photographs")
        assert bool(picture.note) == (not dataset.startswith("cifar"))


@installed
def test_the_label_is_the_last_number_of_the_file_name() -> None:
    first = data.pictures("cifar100", 1, SHAPE)[0]
    assert (first.name, first.label) == ("cifar100_00_49", 49)


@installed
def test_cifar100_is_not_taken_for_cifar10() -> None:
    assert all(p.name.startswith("cifar10_") for p in data.pictures("cifar10", 20, SHAPE))


@installed
def test_the_packages_are_not_imported() -> None:
    code = (
        "import sys; from leakaudit.bench.data import pictures; "
        f"pictures('mnist', 1, {SHAPE}); pictures('photographs', 1, {SHAPE}); "
        "assert not {'foolbox', 'skimage'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"leakaudit\[bench\]"):
        data.pictures("mnist", 1, SHAPE)
