"""PNG in bands: every colour type is read as the whole file is, what is written others can read."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from restore.errors import ImageError, OutputError
from restore.image_io import Picture, png_rows, read_picture, write_picture
from restore.image_io.exif import build_exif, short
from restore.image_io.png import SIGNATURE, chunk
from restore.image_io.png_rows import PngRows
from restore.image_io.png_write import PngRowWriter
from restore.image_io.row_files import NotInPartsError
from restore.image_io.sinks import Carried, Raster

many = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def samples(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def whole(path: Path) -> np.ndarray:
    picture = read_picture(path)
    if picture.alpha is None:
        return picture.pixels
    return np.dstack([picture.pixels, picture.alpha])


def raw_png(
    path: Path, width: int, bits: int, colour: int, rows: np.ndarray, **chunks: bytes
) -> None:
    """A file of unfiltered rows [H, bytes], its data in three chunks."""
    data = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    third = max(1, len(data) // 3)
    parts = [data[:third], data[third : 2 * third], data[2 * third :]]
    head = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    path.write_bytes(
        SIGNATURE
        + chunk(b"IHDR", head)
        + b"".join(chunk(name.encode(), value) for name, value in chunks.items())
        + b"".join(chunk(b"IDAT", part) for part in parts)
        + chunk(b"IEND", b"")
    )


@many
@given(
    dtype=st.sampled_from([np.uint8, np.uint16]),
    channels=st.integers(1, 4),
    height=st.integers(1, 60),
    width=st.integers(1, 50),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    band_bytes=st.sampled_from([1, 1000, 2**24]),
)
def test_bands_written_are_bands_read(
    dtype: Any,
    channels: int,
    height: int,
    width: int,
    cuts: list[int],
    band_bytes: int,
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.png"
    # ramps and noise, so that every filter is chosen somewhere
    picture = samples((height, width, channels), dtype, height)
    picture[::3] = np.arange(width, dtype=dtype)[:, None]
    edges = sorted({0, height, *(min(cut, height) for cut in cuts)})
    with PngRowWriter(path, Raster(height, width, channels, dtype)) as writer:
        for y0, y1 in pairwise(edges):
            writer.write(picture[y0:y1])
    np.testing.assert_array_equal(whole(path), picture, strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png_rows, "_BAND_BYTES", band_bytes)
        with PngRows(path) as rows:
            assert (rows.height, rows.width, rows.channels) == picture.shape
            assert rows.dtype == dtype and rows.has_alpha == (channels in (2, 4))
            for y0, y1 in pairwise(edges):
                got = rows.read(max(0, y0 - 3), y1)
                np.testing.assert_array_equal(got, picture[max(0, y0 - 3) : y1], strict=True)
            # back to the top, and past what was read
            np.testing.assert_array_equal(rows.read(0, 1), picture[:1])
            np.testing.assert_array_equal(rows.read(height - 1, height), picture[-1:])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_what_pillow_wrote(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    if mode == "I;16":
        image = Image.fromarray(samples((41, 30), np.uint16))
    else:
        image = Image.fromarray(samples((41, 30, 4), np.uint8)).convert("RGB").convert(mode)
    image.save(path, optimize=True)
    with PngRows(path) as rows:
        got = np.concatenate([rows.read(0, 20), rows.read(20, 41)])
    np.testing.assert_array_equal(got, whole(path), strict=True)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("colour", [0, 3])
@pytest.mark.parametrize("key", [False, True])
def test_packed_bits_palettes_and_keys(bits: int, colour: int, key: bool, tmp_path: Path) -> None:
    path, width = tmp_path / "a.png", 13
    rows = samples((9, (width * bits + 7) // 8), np.uint8)
    chunks = {"PLTE": samples((2**bits, 3), np.uint8).tobytes()} if colour == 3 else {}
    if key:
        chunks["tRNS"] = b"\0\x80" if colour == 3 else b"\0\1"
    raw_png(path, width, bits, colour, rows, **chunks)
    with PngRows(path) as source:
        assert source.has_alpha == key
        got = np.concatenate([source.read(0, 4), source.read(4, 9)])
    np.testing.assert_array_equal(got, whole(path), strict=True)


def test_metadata_and_orientation(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    exif = build_exif({274: short(2), 306: short(7)}, {})
    carried = Carried(b"\0" * 16 + b"RGB " + b"\0" * 50, exif, b"<x/>", (300.0, 72.0))
    with PngRowWriter(path, Raster(3, 5, 3, np.uint8), carried) as writer:
        writer.write(samples((3, 5, 3), np.uint8))
    want = read_picture(path)
    with PngRows(path) as rows:
        np.testing.assert_array_equal(rows.read(0, 3), want.pixels)
        assert (rows.icc, rows.xmp, rows.exif) == (want.icc, want.xmp, exif)
        assert rows.dpi == want.dpi
    assert (samples((3, 5, 3), np.uint8)[:, ::-1] == want.pixels).all()


def test_floats_are_rounded_to_sixteen_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with PngRowWriter(path, Raster(1, 3, 1, np.float32)) as writer:
        writer.write(np.array([[[0], [0.5], [1]]], np.float32))
    assert read_picture(path).pixels[0, :, 0].tolist() == [0, 32768, 65535]


def test_what_cannot_be_read_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    # no library at hand writes interlaced files; the header alone is read
    head = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 1)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    path.write_bytes(SIGNATURE + data)
    with pytest.raises(NotInPartsError, match="is interlaced"):
        PngRows(path)
    exif = build_exif({274: short(6)}, {})
    with PngRowWriter(path, Raster(1, 1, 1, np.uint8), Carried(exif=exif)) as writer:
        writer.write(np.zeros((1, 1, 1), np.uint8))
    with pytest.raises(NotInPartsError, match="has orientation 6"):
        PngRows(path)
    Image.new("L", (4, 4)).save(path, "JPEG")
    with pytest.raises(ImageError, match="is jpg, not png"):
        PngRows(path)


def test_damaged_rows_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_picture(path, Picture(samples((50, 50, 3), np.uint8)), fmt="png")
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    with PngRows(path) as rows, pytest.raises(ImageError, match="damaged"):
        rows.read(0, 50)
    with PngRows(path) as rows, pytest.raises(ValueError, match="rows 0 to 51"):
        rows.read(0, 51)
    raw_png(path, 4, 8, 0, np.zeros((3, 4), np.uint8))
    short_file = path.read_bytes().replace(struct.pack(">II", 4, 3), struct.pack(">II", 4, 4))
    head = short_file.index(b"IHDR")
    crc = zlib.crc32(short_file[head : head + 17]).to_bytes(4, "big")
    path.write_bytes(short_file[: head + 17] + crc + short_file[head + 21 :])
    with PngRows(path) as rows, pytest.raises(ImageError, match="ends 5 bytes too early"):
        rows.read(0, 4)


def test_a_filter_that_there_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    head = struct.pack(">IIBBBBB", 4, 2, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes([0, 1, 2, 3, 4, 5, 1, 2, 3, 4])))
    path.write_bytes(SIGNATURE + chunk(b"IHDR", head) + data + chunk(b"IEND", b""))
    with PngRows(path) as rows, pytest.raises(ImageError, match="names a filter that there is not"):
        rows.read(0, 2)


def test_an_unfinished_file_does_not_appear(tmp_path: Path) -> None:
    row = np.zeros((1, 5, 3), np.uint8)
    with (
        pytest.raises(OutputError, match="only 1 of 4 rows came"),
        PngRowWriter(tmp_path / "a.png", Raster(4, 5, 3, np.uint8)) as writer,
    ):
        writer.write(row)
    with (
        pytest.raises(ValueError, match="2 rows written; the picture has 1"),
        PngRowWriter(tmp_path / "a.png", Raster(1, 5, 3, np.uint8)) as writer,
    ):
        writer.write(np.repeat(row, 2, axis=0))
    with (
        pytest.raises(ValueError, match=r"expected \[n, 5, 3\] uint8"),
        PngRowWriter(tmp_path / "a.png", Raster(1, 5, 3, np.uint8)) as writer,
    ):
        writer.write(row[:, :4])
    assert not list(tmp_path.iterdir())


def test_memory_is_a_band(tmp_path: Path) -> None:
    # 48 MB of samples, in one chunk as other programs write it, through bands of 64 rows
    path, height, width = tmp_path / "a.png", 4000, 4000
    rng = np.random.default_rng(0)
    band = rng.integers(0, 256, (64, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    packer = zlib.compressobj(0)
    for y in range(0, height, 64):
        rows = band[: min(64, height - y)].reshape(-1, 3 * width)
        buffer.write(packer.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes()))
    buffer.write(packer.flush())
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", buffer.getvalue()) + chunk(b"IEND", b"")
    path.write_bytes(SIGNATURE + chunks)
    del buffer, chunks
    tracemalloc.start()
    with (
        PngRows(path) as source,
        PngRowWriter(tmp_path / "b.png", Raster(height, width, 3, "u1")) as sink,
    ):
        for y in range(0, height, 64):
            sink.write(source.read(y, min(height, y + 64)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26  # eight bands of filters' intermediates, not the picture
