"""TIFF in tiles: the same pixels as in strips, levels that other programs find, nothing half."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restore.errors import OutputError
from restore.image_io import read_picture, tiff_write
from restore.image_io.exif import build_exif, exif_directories, resolution_entries, short
from restore.image_io.sinks import Carried, Raster
from restore.image_io.tiff_packing import COMPRESSIONS, Packing
from restore.image_io.tiff_stream import TiffRows
from restore.image_io.tiff_tiles import TiffTileWriter
from restore.image_io.tile_sink import halved, level_sizes

many = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = (np.uint8, np.uint16, np.float32)


def samples(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def write(path: Path, picture: np.ndarray, cuts: list[int] | None = None, **more: Any) -> None:
    """In blocks, cut at the same places along both axes, from the top down and left to right."""
    height, width, channels = picture.shape
    with TiffTileWriter(path, Raster(height, width, channels, picture.dtype), **more) as sink:
        rows, cols = (sorted({0, n, *(min(cut, n) for cut in cuts or [])}) for n in (height, width))
        for y0, y1 in pairwise(rows):
            for x0, x1 in pairwise(cols):
                sink.write_block(y0, x0, picture[y0:y1, x0:x1])


@many
@given(
    dtype=st.sampled_from(DTYPES),
    channels=st.integers(1, 4),
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    cuts=st.lists(st.integers(0, 80), max_size=4),
    tile=st.sampled_from([16, 32, 64]),
    pyramid=st.booleans(),
    compression=st.sampled_from(["deflate", "none"]),
    big=st.booleans(),
)
def test_blocks_written_are_rows_read(
    dtype: Any,
    channels: int,
    height: int,
    width: int,
    cuts: list[int],
    tile: int,
    pyramid: bool,
    compression: Any,
    big: bool,
    tmp_path: Path,
) -> None:
    path, picture = tmp_path / "a.tiff", samples((height, width, channels), dtype)
    with pytest.MonkeyPatch.context() as patch:
        if big:
            patch.setattr("restore.image_io.tiff_tiles.MAX_CLASSIC", 0)
        write(path, picture, cuts, tile=tile, pyramid=pyramid, compression=compression)
    assert path.read_bytes()[2] == (43 if big else 42)
    with tifffile.TiffFile(path) as tiff:
        pages = list(tiff.pages)
        assert [page.is_tiled for page in pages] == [True] * len(pages)
        assert [int(page.subfiletype) for page in pages] == [0] + [1] * (len(pages) - 1)
        assert [page.shape[:2] for page in pages] == (
            level_sizes(height, width, tile) if pyramid else [(height, width)]
        )
        np.testing.assert_array_equal(pages[0].asarray().reshape(picture.shape), picture)
        level = picture
        for page in pages[1:]:
            level = halved(level)
            np.testing.assert_array_equal(page.asarray().reshape(level.shape), level)
    with TiffRows(path) as rows:
        assert (rows.height, rows.width, rows.channels) == picture.shape
        np.testing.assert_array_equal(rows.read(0, height), picture, strict=True)


# of 8 bits with alpha it hands on colours multiplied by that
@pytest.mark.parametrize(
    ("dtype", "channels"),
    [(np.uint8, 1), (np.uint8, 3), (np.uint16, 1), (np.uint16, 3), (np.uint16, 4)],
)
def test_what_libtiff_reads(dtype: Any, channels: int, tmp_path: Path) -> None:
    path, picture = tmp_path / "a.tiff", samples((70, 50, channels), dtype)
    write(path, picture, [20, 33], tile=32, pyramid=True)
    got = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).reshape(picture.shape)
    swapped = got[..., {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]]
    np.testing.assert_array_equal(swapped, picture)


def test_tifffile_sees_the_levels_of_one_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    write(path, samples((200, 300, 3), np.uint8), tile=64, pyramid=True)
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.series) == 1
        shapes = [level.shape for level in tiff.series[0].levels]
    assert shapes == [(200, 300, 3), (100, 150, 3), (50, 75, 3), (25, 38, 3)]
    assert read_picture(path).pixels.shape == (200, 300, 3)


def test_libvips_sees_the_levels_of_one_picture(tmp_path: Path) -> None:
    pyvips = pytest.importorskip("pyvips")
    path, picture = tmp_path / "a.tiff", samples((200, 300, 3), np.uint16)
    write(path, picture, tile=64, pyramid=True)
    for level in range(4):
        got = pyvips.Image.new_from_file(str(path), page=level).numpy()
        np.testing.assert_array_equal(got, picture)
        picture = halved(picture)


def test_metadata_belongs_to_the_picture_not_to_its_levels(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    exif = build_exif({**resolution_entries((10, 10)), 274: short(1)}, {34665: {40961: short(1)}})
    for big in (0, 2**40):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("restore.image_io.tiff_tiles.MAX_CLASSIC", big)
            carried = Carried(icc=b"i" * 99, exif=exif, xmp=b"<x/>", dpi=(299.9, 72))
            write(path, samples((40, 40, 3), np.uint8), tile=16, pyramid=True, carried=carried)
        with TiffRows(path) as rows:
            assert rows.dpi == (299.9, 72)
            assert (rows.icc, rows.xmp) == (b"i" * 99, b"<x/>")
            assert rows.exif is not None
            assert exif_directories(rows.exif)[1][34665][40961].number() == 1
        with tifffile.TiffFile(path) as tiff:
            assert tiff.pages[0].iccprofile == b"i" * 99
            assert 34675 not in tiff.pages[1].tags


def test_an_unfinished_or_failed_file_does_not_appear(tmp_path: Path) -> None:
    path, picture = tmp_path / "a.tiff", samples((40, 40, 3), np.uint8)
    with (
        pytest.raises(OutputError, match="800 of 1600 pixels never came; nothing is kept"),
        TiffTileWriter(path, Raster(40, 40, 3, np.uint8), tile=16) as sink,
    ):
        sink.write(picture[:20])
    with (
        pytest.raises(KeyboardInterrupt),
        TiffTileWriter(path, Raster(40, 40, 3, np.uint8), tile=16) as sink,
    ):
        sink.write(picture)
        raise KeyboardInterrupt
    with (
        pytest.raises(ValueError, match=r"block is \(40, 40, 3\) uint16 at row 0, column 0"),
        TiffTileWriter(path, Raster(40, 40, 3, np.uint8), tile=16) as sink,
    ):
        sink.write(picture.astype(np.uint16))
    with (
        pytest.raises(ValueError, match=r"block is \(40, 40, 3\) uint8 at row 1"),
        TiffTileWriter(path, Raster(40, 40, 3, np.uint8), tile=16) as sink,
    ):
        sink.write_block(1, 0, picture)
    with pytest.raises(ValueError, match="tile is 20; TIFF takes multiples of 16"):
        TiffTileWriter(path, Raster(40, 40, 3, np.uint8), tile=20)
    assert not list(tmp_path.iterdir())


def test_halving() -> None:
    gray = np.array([[1, 2, 5], [2, 2, 8], [9, 0, 255]], np.uint8)[..., None]
    # (1 + 2 + 2 + 2) / 4 is 1.75; the edge counts twice: (5 + 5 + 8 + 8) / 4 is 6.5, rounded up
    assert halved(gray)[..., 0].tolist() == [[2, 7], [5, 255]]
    deep = np.full((2, 2, 1), 65535, np.uint16)
    assert halved(deep).tolist() == [[[65535]]]
    # half of it transparent black: the colour stays, alpha halves
    rgba = np.array([[[200, 10, 20, 255], [0, 0, 0, 0]]], np.uint8)
    assert halved(rgba).tolist() == [[[200, 10, 20, 128]]]
    clear = np.array([[[8, 8, 8, 0], [4, 4, 4, 0]]], np.uint8)
    assert halved(clear).tolist() == [[[6, 6, 6, 0]]]
    floats = np.array([[[0.5, 1.0], [0.25, 0.0]]], np.float32)
    assert halved(floats).tolist() == [[[0.5, 0.5]]]


@many
@given(height=st.integers(1, 4000), width=st.integers(1, 4000))
def test_levels_end_with_one_tile(height: int, width: int) -> None:
    sizes = level_sizes(height, width, 256)
    assert sizes[0] == (height, width) and max(sizes[-1]) <= 256
    assert all(max(size) > 256 for size in sizes[:-1])
    assert all(b == (-(-a[0] // 2), -(-a[1] // 2)) for a, b in pairwise(sizes))


@pytest.mark.parametrize("compression", ["lzw", "zstd"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("tile", [0, 32])
def test_other_compressions_are_exact(
    compression: Any, dtype: Any, channels: int, tile: int, tmp_path: Path
) -> None:
    pytest.importorskip("imagecodecs")
    path, picture = tmp_path / "a.tiff", samples((70, 50, channels), dtype)
    if tile:
        write(path, picture, [11, 40], tile=tile, pyramid=True, compression=compression)
    else:
        size = (*picture.shape, picture.dtype)
        with tiff_write.TiffRowWriter(path, Raster(*size), compression=compression) as writer:
            writer.write(picture)
    np.testing.assert_array_equal(tifffile.imread(path).reshape(picture.shape), picture)
    with TiffRows(path) as rows:
        np.testing.assert_array_equal(rows.read(0, 70), picture, strict=True)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tile", [0, 32])
def test_jpeg_in_tiff_is_near(channels: int, tile: int, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    y, x = np.mgrid[:90, :70]
    picture = np.stack([y * 2, x * 3, 255 - y * 2], axis=2)[..., :channels].astype(np.uint8)
    path = tmp_path / "a.tiff"
    if tile:
        write(path, picture, [11, 40], tile=tile, pyramid=True, compression="jpeg")
    else:
        with tiff_write.TiffRowWriter(
            path, Raster(90, 70, channels, np.uint8), compression="jpeg"
        ) as out:
            out.write(picture)
    for got in (
        tifffile.imread(path).reshape(picture.shape),
        cv2.imread(str(path), cv2.IMREAD_UNCHANGED).reshape(picture.shape)[..., ::-1],
        read_picture(path).pixels,
    ):
        # quality 90 of smooth ramps: a few levels, and colours are not swapped
        assert np.abs(got.astype(int) - picture).max() <= 8


def test_compressions_that_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert set(COMPRESSIONS) == {"deflate", "lzw", "zstd", "jpeg", "none"}
    with pytest.raises(OutputError, match="jpeg: cannot carry alpha, only 8 bits"):
        Packing("jpeg", 4, np.dtype(np.uint8))
    with pytest.raises(OutputError, match="jpeg: cannot carry uint16 samples"):
        Packing("jpeg", 3, np.dtype(np.uint16))
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    message = r"TIFF compression zstd: needs the package imagecodecs.*restore-sr\[large\]"
    with pytest.raises(OutputError, match=message):
        TiffTileWriter(tmp_path / "a.tif", Raster(4, 4, 3, np.uint8), tile=16, compression="zstd")
