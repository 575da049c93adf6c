"""Pictures of training sets, whole and in parts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from restore.datasets.cache import PictureCache
from restore.datasets.images import Box, Pictures, in_colour, luma, read_entry, unit
from restore.datasets.listing import Entry
from restore.errors import ImageError

RANDOM = np.random.default_rng(0)
PICTURE = RANDOM.integers(0, 256, (40, 30, 3), np.uint8)
BOX = Box(7, 3, 11, 20)


def save(path: Path) -> Entry:
    if path.suffix == ".npy":
        np.save(path, PICTURE)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, PICTURE, rowsperstrip=4, photometric="rgb")
    else:
        Image.fromarray(PICTURE).save(path)
    return Entry(path)


@pytest.mark.parametrize("room", [0, 2**20], ids=["no cache", "cache"])
@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "npy"])
def test_a_part_is_the_part_of_the_whole(tmp_path: Path, suffix: str, room: int) -> None:
    entry = save(tmp_path / f"a.{suffix}")
    pictures = Pictures([entry], "rgb", PictureCache(1, room))
    assert pictures.size(0) == (40, 30)
    np.testing.assert_array_equal(pictures.part(0, BOX), BOX.of(PICTURE))
    np.testing.assert_array_equal(pictures.whole(0), PICTURE)


def test_of_a_tiff_only_the_rows_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = save(tmp_path / "a.tif")
    pictures = Pictures([entry], "rgb", PictureCache(1, 0))
    monkeypatch.setattr("restore.datasets.images.read_entry", lambda _: pytest.fail("whole"))
    np.testing.assert_array_equal(pictures.part(0, BOX), BOX.of(PICTURE))


def test_a_turned_tiff_is_read_whole(tmp_path: Path) -> None:
    extra = [(274, "H", 1, 6, True)]
    tifffile.imwrite(tmp_path / "a.tif", PICTURE, photometric="rgb", extratags=extra)
    pictures = Pictures([Entry(tmp_path / "a.tif")], "rgb", PictureCache(1, 0))
    assert pictures.size(0) == (30, 40)
    box = Box(3, 7, 20, 11)
    np.testing.assert_array_equal(pictures.part(0, box), box.of(np.rot90(PICTURE, -1)))


def test_an_array_stays_in_its_file(tmp_path: Path) -> None:
    cache = PictureCache(1, 2**20)
    pictures = Pictures([save(tmp_path / "a.npy")], "rgb", cache)
    pictures.part(0, BOX)
    assert cache.used == 0


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2))])
def test_an_array_that_is_no_picture_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ImageError, match="expected"):
        read_entry(Entry(tmp_path / "a.npy"))
    (tmp_path / "b.npy").write_bytes(b"no array")
    with pytest.raises(ImageError, match="cannot be read as an array"):
        read_entry(Entry(tmp_path / "b.npy"))


def test_gray_gets_three_equal_channels_and_colour_becomes_gray() -> None:
    gray = PICTURE[:, :, :1]
    np.testing.assert_array_equal(in_colour(gray, "rgb"), np.repeat(gray, 3, 2))
    expected = cv2.cvtColor(PICTURE, cv2.COLOR_RGB2GRAY)[:, :, None]
    np.testing.assert_array_equal(in_colour(PICTURE, "gray"), expected)
    assert in_colour(gray, "gray") is gray


def test_unit_divides_by_white() -> None:
    np.testing.assert_array_equal(unit(PICTURE), PICTURE.astype(np.float32) / np.float32(255))
    deep = PICTURE.astype(np.uint16) * 257
    np.testing.assert_array_equal(unit(deep), deep.astype(np.float32) / np.float32(65535))


def test_luma_is_basicsrs_y() -> None:
    """Y = (65.481 R + 128.553 G + 24.966 B + 16) / 255 of R, G, B in 0..1."""
    rgb = PICTURE.astype(np.float64) / 255
    expected = (rgb @ [65.481, 128.553, 24.966] + 16) / 255
    np.testing.assert_allclose(luma(PICTURE)[:, :, 0], expected, rtol=0, atol=2**-23)
