"""Probes: reproducible, in range, image-like, and a user's picture or a clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")

from leakaudit.confirm.probes import is_image_shape, load_probe, make_probe
from leakaudit.errors import AuditError, UsageError

SHAPES = [(1, 3, 32, 32), (2, 3, 16, 24), (4, 1, 28, 28), (1, 1, 8, 31), (1, 3, 8, 8)]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_probe_fills_its_shape_with_values_between_0_and_1(shape: Any) -> None:
    probe = make_probe(shape, 3)
    assert probe.is_image
    assert probe.values.shape == shape
    assert probe.values.dtype is torch.float64
    assert float(probe.values.min()) >= 0
    assert float(probe.values.max()) <= 1
    for image in probe.values:
        assert float(image.max() - image.min()) > 0.9  # uses the range
        assert float(image.std()) > 0.05


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 20), (2, 5, 9), (1, 2, 4, 4, 4)])
def test_the_seed_decides(shape: Any) -> None:
    first, second, other = (make_probe(shape, seed) for seed in (7, 7, 8))
    assert torch.equal(first.values, second.values)
    assert first.name == second.name
    assert not torch.equal(first.values, other.values)


def test_the_global_random_state_neither_matters_nor_changes() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = make_probe((1, 3, 16, 16), 0)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(make_probe((1, 3, 16, 16), 0).values, first.values)


def test_images_of_a_batch_differ() -> None:
    values = make_probe((3, 1, 16, 16), 0).values
    assert not torch.equal(values[0], values[1])
    assert not torch.equal(values[1], values[2])


def test_colour_channels_share_most_but_not_all() -> None:
    correlations = []
    for seed in range(6):
        flat = make_probe((1, 3, 32, 32), seed).values[0].reshape(3, -1)
        correlations += torch.corrcoef(flat)[[0, 0, 1], [1, 2, 2]].tolist()
    assert 0.5 < float(np.mean(correlations)) < 0.999


@pytest.mark.parametrize("seed", range(4))
def test_power_falls_with_frequency_as_in_photographs(seed: int) -> None:
    size = 64
    image = make_probe((1, 1, size, size), seed).values[0, 0].numpy()
    window = np.hanning(size)[:, None] * np.hanning(size)[None, :]
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    frequency = np.fft.fftfreq(size) * size
    radius = np.hypot(frequency[:, None], frequency[None, :])
    rings = np.arange(2, size // 2)
    average = [power[(radius >= r - 0.5) & (radius < r + 0.5)].mean() for r in rings]
    slope = np.polyfit(np.log(rings), np.log(average), 1)[0]
    assert -2.7 < slope < -1.6  # Field 1987: about -2


@pytest.mark.parametrize(
    "shape", [(1, 10), (1, 4, 16, 16), (1, 3, 7, 16), (1, 3, 16), (1, 3, 8, 8, 8), (1, 2, 32, 32)]
)
def test_other_inputs_are_noise_and_not_called_images(shape: Any) -> None:
    assert not is_image_shape(shape)
    probe = make_probe(shape, 0)
    assert not probe.is_image
    assert probe.values.shape == shape
    assert 0 <= float(probe.values.min()) <= float(probe.values.max()) <= 1


def picture(folder: Path, mode: str = "RGB", size: tuple[int, int] = (12, 10)) -> Path:
    """A picture of three vertical stripes, saved as PNG."""
    width, height = size
    data = np.zeros((height, width, 3), dtype=np.uint8)
    data[:, : width // 3, 0] = 255
    data[:, width // 3 : 2 * width // 3, 1] = 255
    data[:, 2 * width // 3 :, 2] = 255
    path = folder / "stripes.png"
    Image.fromarray(data).convert(mode).save(path)
    return path


def test_a_picture_of_the_right_size_comes_through_unchanged(tmp_path: Path) -> None:
    probe = load_probe(picture(tmp_path), (1, 3, 10, 12))
    assert probe.is_image
    assert probe.values.shape == (1, 3, 10, 12)
    assert probe.values.dtype is torch.float64
    expected = torch.zeros(3, 10, 12, dtype=torch.float64)
    for channel in range(3):
        expected[channel, :, 4 * channel : 4 * channel + 4] = 1
    assert torch.equal(probe.values[0], expected)
    assert "stripes.png" in probe.name


def test_a_picture_is_resized_and_made_grey_where_the_model_wants_it(tmp_path: Path) -> None:
    path = picture(tmp_path, size=(60, 40))
    probe = load_probe(path, (1, 1, 16, 24))
    assert probe.values.shape == (1, 1, 16, 24)
    row = probe.values[0, 0, 8]
    # ITU-R 601 luma of pure red, green and blue.
    assert row[[3, 12, 20]].tolist() == pytest.approx([0.299, 0.587, 0.114], abs=0.01)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_pictures_of_any_mode_are_read(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("p.tif" if mode == "CMYK" else "p.png")
    Image.new(mode, (9, 9), 1).save(path)
    values = load_probe(path, (1, 3, 9, 9)).values
    assert values.shape == (1, 3, 9, 9)
    assert 0 <= float(values.min()) <= float(values.max()) <= 1


def test_one_picture_fills_a_batch(tmp_path: Path) -> None:
    values = load_probe(picture(tmp_path), (3, 3, 10, 12)).values
    assert torch.equal(values[0], values[2])
    values[0] = 0  # the batch owns its memory
    assert float(values[2].max()) == 1


def test_a_missing_picture_is_an_audit_error(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="no such picture"):
        load_probe(tmp_path / "none.png", (1, 3, 10, 12))


@pytest.mark.parametrize(
    "content",
    [b"", b"not a picture", b"\x89PNG\r\n\x1a\n broken", b"P6 20\x02t0 20 255 ", b"GIF89a\x00"],
)
def test_a_file_that_is_no_picture_is_an_audit_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(AuditError, match="cannot be read as a picture"):
        load_probe(path, (1, 3, 10, 12))


def test_a_truncated_picture_is_an_audit_error(tmp_path: Path) -> None:
    whole = picture(tmp_path, size=(300, 200))
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole)
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:20_000])
    with pytest.raises(AuditError, match="cannot be read as a picture"):
        load_probe(cut, (1, 3, 10, 12))


def test_a_folder_is_an_audit_error(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="cannot be read as a picture"):
        load_probe(tmp_path, (1, 3, 10, 12))


def test_a_decompression_bomb_is_an_audit_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = picture(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(AuditError, match="cannot be read as a picture"):
        load_probe(path, (1, 3, 10, 12))


def test_a_picture_for_a_model_without_images_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1x20 is not an image"):
        load_probe(picture(tmp_path), (1, 20))
