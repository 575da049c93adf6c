"""Previews: of the right size and place, and never large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from restore.image_io import Picture, probe, read_picture, write_picture
from restore.resizing import imresize
from restore.upscaling.pixels import ArraySource, from_unit
from restore.web import previews
from restore.web.previews import make_views, shown


def ramp(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Brightness that grows to the right and down, differently in each channel."""
    y, x = np.mgrid[:height, :width]
    plane = x / max(width - 1, 1) * 0.6 + y / max(height - 1, 1) * 0.4
    stacked = np.stack([plane * (1 - 0.2 * c) for c in range(channels)], axis=2)
    return np.round(stacked * 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, alpha: np.ndarray | None = None) -> Path:
    fmt = {".png": "png", ".tif": "tiff", ".jpg": "jpg"}[path.suffix]
    write_picture(path, Picture(pixels, alpha), fmt=fmt)  # type: ignore[arg-type]
    return path


def test_enlarging_is_bicubic_as_matlab_has_it() -> None:
    pixels = ramp(7, 9)
    want = imresize(pixels.astype(np.float32) / np.float32(255), size=(28, 36))
    got = shown(ArraySource(pixels), 28, 36)
    assert np.array_equal(got, from_unit(np.clip(want, 0, 1), np.dtype(np.uint8)))


@pytest.mark.parametrize("size", [(1000, 1500), (1001, 1499), (2049, 517)])
def test_reducing_keeps_every_place(size: tuple[int, int]) -> None:
    height, width = size
    h, w = height // 6, width // 6
    got = shown(ArraySource(ramp(height, width)), h, w).astype(int)
    # a ramp's mean over a square is its value in the square's middle
    y, x = np.mgrid[:h, :w]
    plane = (x + 0.5) / w * 0.6 + (y + 0.5) / h * 0.4
    # half a level by rounding, and less than one preview pixel of shift at the ends
    least_step = 255 * (0.6 / w + 0.4 / h)
    assert np.abs(got[:, :, 0] - plane * 255).max() <= 1 + least_step


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ArraySource(ramp(601, 433))
    whole = shown(source, 100, 72)
    monkeypatch.setattr(previews, "_BAND", 13)
    assert np.array_equal(shown(source, 100, 72), whole)


def test_views_of_a_small_picture_are_its_pixels(tmp_path: Path) -> None:
    before, after = ramp(20, 30), ramp(80, 120)
    first, second = save(tmp_path / "a.png", before), save(tmp_path / "b.png", after)
    views = make_views(first, second, tmp_path, "1")
    assert views.detail is None and not views.whole_is_reduced
    assert (views.whole.width, views.whole.height) == (120, 80)
    for path in (views.whole.before, views.whole.after):
        assert (probe(path).width, probe(path).height) == (120, 80)


def test_views_of_a_large_picture_are_small_and_one_shows_pixels(tmp_path: Path) -> None:
    before = ramp(700, 500)
    before[300:330, 200:230] = np.random.default_rng(0).integers(0, 256, (30, 30, 3))
    after = np.repeat(np.repeat(before, 2, 0), 2, 1)
    first, second = save(tmp_path / "a.png", before), save(tmp_path / "b.png", after)
    views = make_views(first, second, tmp_path, "1")
    assert views.whole_is_reduced
    assert (views.whole.width, views.whole.height) == (914, 1280)
    assert views.detail is not None
    assert max(views.detail.width, views.detail.height) <= previews.LONGEST_DETAIL
    shown_pixels = read_picture(views.detail.after).pixels
    where = [
        (y, x)
        for y in range(0, 1400 - len(shown_pixels) + 1, 2)
        for x in range(0, 1000 - shown_pixels.shape[1] + 1, 2)
        if np.array_equal(after[y, x], shown_pixels[0, 0])
        and np.array_equal(
            after[y : y + len(shown_pixels), x : x + shown_pixels.shape[1]], shown_pixels
        )
    ]
    assert len(where) == 1  # a part of the result as it is, the noise in it
    top, left = where[0]
    assert top <= 600 and top + len(shown_pixels) >= 660
    assert left <= 400 and left + shown_pixels.shape[1] >= 460


@pytest.mark.parametrize("channels", [1, 3])
def test_transparency_is_laid_on_white(tmp_path: Path, channels: int) -> None:
    pixels = np.zeros((16, 16, channels), np.uint8)
    alpha = np.zeros((16, 16), np.uint8)
    alpha[:, 8:] = 255
    first = save(tmp_path / "a.png", pixels, alpha)
    views = make_views(first, first, tmp_path, "1")
    seen = read_picture(views.whole.after).pixels
    # the codec of the preview smears the edge a little
    assert seen[:, :6].min() >= 250 and seen[:, 10:].max() <= 5


def test_a_large_tiff_is_read_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = save(tmp_path / "a.tif", ramp(40, 60)), save(tmp_path / "b.tif", ramp(80, 120))
    whole = make_views(first, second, tmp_path, "whole").whole
    monkeypatch.setattr(previews, "MOST_DECODED", 1)
    monkeypatch.setattr(previews, "read_picture", None)  # what would decode it
    bands = make_views(first, second, tmp_path, "bands").whole
    assert bands.after.read_bytes() == whole.after.read_bytes()
    assert bands.before.read_bytes() == whole.before.read_bytes()
