"""The pictures, checked by reading the files back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leakaudit.errors import UsageError
from leakaudit.report.images import safe_stem, write_images


def read(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32)) / 255


def test_pictures_hold_the_pixels(tmp_path: Path, photo: np.ndarray) -> None:
    report = write_images(tmp_path / "new" / "folder", "lenet", photo, photo / 2)
    original = read(report.original)
    assert original.shape == (256, 256, 3)
    # Nearest neighbour: each source pixel is one square of a single colour.
    squares = original.reshape(32, 8, 32, 8, 3)
    assert np.array_equal(squares.min(axis=(1, 3)), squares.max(axis=(1, 3)))
    expected = np.rint(photo * 255).transpose(1, 2, 0)
    assert np.array_equal(squares[:, 0, :, 0], expected)
    assert np.abs(read(report.reconstruction)[::8, ::8] * 2.0 - expected).max() <= 1
    assert Path(report.difference) == tmp_path / "new" / "folder" / "lenet-difference.png"


def test_the_difference_is_scaled_to_white(tmp_path: Path, photo: np.ndarray) -> None:
    changed = photo.copy()
    changed[0, 3, 5] += 0.02
    changed[2, 7, 1] -= 0.01
    difference = read(write_images(tmp_path, "a", photo, changed).difference)[::8, ::8]
    assert difference[3, 5].tolist() == [255, 0, 0]
    assert difference[7, 1].tolist() == [0, 0, 128]
    assert np.count_nonzero(difference) == 2


def test_a_difference_nobody_can_see_stays_black(tmp_path: Path, photo: np.ndarray) -> None:
    assert not read(write_images(tmp_path, "a", photo, photo + 1e-9).difference).any()
    assert not read(write_images(tmp_path, "b", photo, photo + 0.9 / 510).difference).any()


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28)])
def test_grey_pictures(shape: tuple[int, ...], tmp_path: Path) -> None:
    grey = np.linspace(0, 1, 784).reshape(shape)
    original = read(write_images(tmp_path, "digit", grey, grey).original)
    assert original.shape == (280, 280)
    assert (original[0, 0], original[-1, -1]) == (0, 255)


def test_a_large_picture_keeps_its_size(tmp_path: Path) -> None:
    large = np.zeros((3, 300, 200))
    assert read(write_images(tmp_path, "a", large, large).original).shape == (300, 200, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_marked(
    bad: float, tmp_path: Path, photo: np.ndarray
) -> None:
    broken = photo.copy()
    broken[1, 0, 0] = bad
    broken[0, 9, 9] += 0.5
    report = write_images(tmp_path, "a", photo, broken)
    magenta = [255, 0, 255]
    assert read(report.reconstruction)[0, 0].tolist() == magenta
    difference = read(report.difference)[::8, ::8]
    assert difference[0, 0].tolist() == magenta
    assert difference[9, 9].tolist() == [255, 0, 0]
    grey = write_images(tmp_path, "grey", photo[0], np.full((32, 32), bad))
    assert (read(grey.reconstruction) == magenta).all()


def test_values_outside_the_range_are_clipped(tmp_path: Path) -> None:
    values = np.array([[-1e9, 1e9]])
    report = write_images(tmp_path, "a", np.array([[0.0, 1.0]]), values)
    assert read(report.reconstruction)[0, [0, -1]].tolist() == [0, 255]


def test_own_pictures_are_replaced(tmp_path: Path, photo: np.ndarray) -> None:
    write_images(tmp_path, "a", photo, photo)
    report = write_images(tmp_path, "a", 1 - photo, photo)
    assert np.array_equal(
        read(report.original)[::8, ::8], 255 - np.rint(photo * 255).T.swapaxes(0, 1)
    )


def test_the_same_pictures_give_the_same_bytes(tmp_path: Path, photo: np.ndarray) -> None:
    for stem in "ab":
        write_images(tmp_path, stem, photo, photo / 3)
    for kind in ("original", "reconstruction", "difference"):
        first, second = (tmp_path / f"{stem}-{kind}.png" for stem in "ab")
        assert first.read_bytes() == second.read_bytes()


def test_nobody_elses_file_is_overwritten(tmp_path: Path, photo: np.ndarray) -> None:
    target = tmp_path / "a-difference.png"
    Image.new("RGB", (4, 4)).save(target)
    foreign = target.read_bytes()
    for content in (foreign, b"", b"notes", foreign[:20]):
        target.write_bytes(content)
        with pytest.raises(UsageError, match="was not written by leakaudit"):
            write_images(tmp_path, "a", photo, photo)
        assert target.read_bytes() == content
        assert [path.name for path in tmp_path.iterdir()] == ["a-difference.png"]


def test_links_and_folders_are_not_followed(tmp_path: Path, photo: np.ndarray) -> None:
    ours = write_images(tmp_path / "ours", "x", photo, photo).original
    before = Path(ours).read_bytes()
    link = tmp_path / "a-original.png"
    link.symlink_to(ours)
    with pytest.raises(UsageError, match="was not written by leakaudit"):
        write_images(tmp_path, "a", 1 - photo, photo)
    assert Path(ours).read_bytes() == before
    (tmp_path / "b-original.png").mkdir()
    with pytest.raises(UsageError, match="was not written by leakaudit"):
        write_images(tmp_path, "b", photo, photo)


def test_a_folder_that_is_a_file_is_a_usage_error(tmp_path: Path, photo: np.ndarray) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot write pictures"):
        write_images(tmp_path / "file", "a", photo, photo)


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("lenet_main.onnx", "lenet_main.onnx"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", "model"),
        ("", "model"),
        (".hidden", "hidden"),
        ("C:\\a b", "C__a_b"),
        ("\x1b[31m\n<script>", "__31m__script_"),
        ("é" * 200, "_" * 100),
    ],
)
def test_stems_are_harmless(stem: str, expected: str, tmp_path: Path, photo: np.ndarray) -> None:
    assert safe_stem(stem) == expected
    folder = tmp_path / "pictures"
    report = write_images(folder, stem, photo, photo)
    assert Path(report.original) == folder / f"{expected}-original.png"
    assert sorted(path.parent for path in tmp_path.rglob("*.png")) == [folder] * 3


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 3, 8, 8), (8,), (3, 0, 8)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a picture"):
        write_images(tmp_path, "a", np.zeros(shape), np.zeros(shape))


def test_pictures_of_two_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different shapes"):
        write_images(tmp_path, "a", np.zeros((8, 8)), np.zeros((3, 8, 8)))
    assert list(tmp_path.iterdir()) == []
