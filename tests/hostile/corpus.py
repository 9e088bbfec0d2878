"""Malformed model files, made by code: what every one of them must lead to is exit code 3.

A case is written into an empty folder and named by its path there. All of them are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Case:
    """One malformed target.

    Attributes:
        name: Unique; what is wrong.
        file: What the target is called in its folder.
        make: Writes it, given its path.
    """

    name: str
    file: str
    make: Callable[[Path], object]

    def write(self, folder: Path) -> Path:
        """Write the case into a folder; its target."""
        path = folder / self.file
        self.make(path)
        return path


def content(name: str, file: str, data: bytes) -> Case:
    """A case that is a file with these bytes."""
    return Case(name, file, lambda path: path.write_bytes(data))


def all_cases() -> list[Case]:
    """The whole corpus, in a fixed order."""
    from corpus_files import file_cases
    from corpus_onnx import onnx_cases
    from corpus_onnx_models import model_cases
    from corpus_pt2 import pt2_cases
    from corpus_pt2_zip import zip_cases

    cases = [*file_cases(), *onnx_cases(), *model_cases(), *pt2_cases(), *zip_cases()]
    assert len({case.name for case in cases}) == len(cases)
    return cases
