"""TIFF in bands: every layout is read exactly, what is written others can read."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from itertools import pairwise

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from restore.errors import ImageError, OutputError
from restore.image_io import Picture, read_picture, tiff, tiff_write, write_picture
from restore.image_io.exif import build_exif, exif_directories, resolution_entries, short
from restore.image_io.sinks import Carried, Raster
from restore.image_io.tiff_stream import TiffRows
from restore.image_io.tiff_write import TiffRowWriter

many = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = (np.uint8, np.uint16, np.float32)


def samples(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@many
@given(
    dtype=st.sampled_from(DTYPES),
    channels=st.integers(1, 4),
    height=st.integers(1, 60),
    width=st.integers(1, 50),
    level=st.sampled_from([0, 6]),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    strip_bytes=st.sampled_from([1, 1000, 2**20]),
    big=st.booleans(),
)
def test_bands_written_are_bands_read(
    dtype, channels, height, width, level, cuts, strip_bytes, big, tmp_path
):
    path, picture = tmp_path / "a.tiff", samples((height, width, channels), dtype)
    edges = sorted({0, height, *(min(cut, height) for cut in cuts)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiff_write, "_STRIP_BYTES", strip_bytes)
        if big:
            patch.setattr(tiff_write, "MAX_CLASSIC", 0)
        with TiffRowWriter(path, Raster(height, width, channels, dtype), level=level) as writer:
            for y0, y1 in pairwise(edges):
                writer.write(picture[y0:y1])
    assert path.read_bytes()[2] == (43 if big else 42)
    np.testing.assert_array_equal(tifffile.imread(path).reshape(picture.shape), picture)
    with TiffRows(path) as rows:
        assert (rows.height, rows.width, rows.channels) == picture.shape
        assert rows.dtype == dtype and rows.has_alpha == (channels in (2, 4))
        for y0, y1 in pairwise(edges):
            got = rows.read(max(0, y0 - 3), y1)
            np.testing.assert_array_equal(got, picture[max(0, y0 - 3) : y1], strict=True)


@many
@given(
    dtype=st.sampled_from([*DTYPES, np.float16, np.float64]),
    channels=st.sampled_from([1, 3, 4]),
    tile=st.sampled_from([None, (16, 32), (48, 16)]),
    compression=st.sampled_from([None, "zlib", "lzma"]),
    predictor=st.booleans(),
    planar=st.booleans(),
    order=st.sampled_from("<>"),
    rowsperstrip=st.sampled_from([None, 1, 7]),
    y0=st.integers(0, 52),
)
def test_every_layout_of_another_program(
    dtype, channels, tile, compression, predictor, planar, order, rowsperstrip, y0, tmp_path
):
    path, picture = tmp_path / "a.tiff", samples((53, 37, channels), dtype)
    stored = picture[..., 0] if channels == 1 else picture
    if planar and channels > 1:
        stored = np.moveaxis(picture, 2, 0)
    tifffile.imwrite(
        path,
        stored,
        byteorder=order,
        photometric="minisblack" if channels == 1 else "rgb",
        planarconfig=None if channels == 1 else "separate" if planar else "contig",
        extrasamples=["unassalpha"] if channels == 4 else None,
        tile=tile,
        rowsperstrip=None if tile else rowsperstrip,
        compression=compression,
        predictor=predictor and compression == "zlib" and np.dtype(dtype).kind == "u",
    )
    wanted = picture.astype(np.float32) if np.dtype(dtype).kind == "f" else picture
    with TiffRows(path) as rows:
        np.testing.assert_array_equal(rows.read(y0, 53), wanted[y0:], strict=True)
        np.testing.assert_array_equal(rows.read(0, 53), wanted, strict=True)


@pytest.mark.parametrize("compression", [5, 32773, 8])  # LZW, PackBits, deflate
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_libtiff_wrote(compression, dtype, channels, tmp_path):
    # OpenCV writes LZW with predictors 2 and 3, which tifffile cannot read alone
    path = tmp_path / "a.tiff"
    picture = samples((40, 30, channels), dtype)
    swapped = picture[..., {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]]
    flags = [cv2.IMWRITE_TIFF_COMPRESSION, compression, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 7]
    predictor = 3 if dtype == np.float32 else 2
    if compression != 32773:
        flags += [cv2.IMWRITE_TIFF_PREDICTOR, predictor]
    assert cv2.imwrite(str(path), swapped, flags)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].compression == compression
        assert compression == 32773 or tiff.pages[0].predictor == predictor
    got = read_picture(path)
    both = got.pixels if got.alpha is None else np.dstack([got.pixels, got.alpha])
    np.testing.assert_array_equal(both, picture)


@pytest.mark.parametrize("bits", [1, 2, 4, 12])
def test_packed_bits(bits):
    top = 2**bits - 1
    values = np.arange(13, dtype=np.uint32).reshape(1, 13) % (top + 1)
    packed = np.packbits((values[..., None] >> np.arange(bits - 1, -1, -1)) & 1)
    got = tiff._unpacked(packed.tobytes(), 1, 13, 1, bits, is_index=False)
    full = 255 if bits < 8 else 65535
    assert (got[0, :, 0] == np.floor(values[0] * full / top + 0.5)).all()


def test_inverted_gray_and_premultiplied_colour(tmp_path):
    path, gray = tmp_path / "a.tiff", samples((5, 6), np.uint16)
    tifffile.imwrite(path, gray, photometric="miniswhite")
    np.testing.assert_array_equal(read_picture(path).pixels[..., 0], 65535 - gray)
    rgba = np.array([[[100, 50, 0, 200], [0, 0, 0, 0], [9, 9, 9, 255]]], np.uint8)
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["assocalpha"])
    got = read_picture(path)
    # 100 / 200 of 255 is 127.5, rounded up
    assert got.pixels.tolist() == [[[128, 64, 0], [0, 0, 0], [9, 9, 9]]]
    assert got.alpha.tolist() == [[200, 0, 255]]
    assert "associated alpha" in got.notes[0]
    five = samples((5, 6, 5), np.uint8)
    tifffile.imwrite(path, five, photometric="rgb", extrasamples=["unspecified", "unassalpha"])
    got = read_picture(path)
    np.testing.assert_array_equal(got.alpha, five[..., 4])
    assert "1 further channels" in got.notes[0]


def test_palette_of_sixteen_bits(tmp_path):
    path, indices = tmp_path / "a.tiff", samples((5, 6), np.uint8)
    table = samples((3, 256), np.uint16)
    tifffile.imwrite(path, indices, photometric="palette", colormap=table)
    np.testing.assert_array_equal(read_picture(path).pixels, table.T[indices])


def test_metadata_both_ways(tmp_path):
    path = tmp_path / "a.tiff"
    exif = build_exif({**resolution_entries((10, 10)), 274: short(1)}, {34665: {40961: short(1)}})
    for big in (0, 2**40):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tiff_write, "MAX_CLASSIC", big)
            carried = Carried(icc=b"i" * 99, exif=exif, xmp=b"<x/>", dpi=(299.9, 72))
            with TiffRowWriter(path, Raster(2, 2, 3, np.uint8), carried) as writer:
                writer.write(np.zeros((2, 2, 3), np.uint8))
        with TiffRows(path) as rows:
            assert rows.dpi == (299.9, 72)
            assert (rows.icc, rows.xmp) == (b"i" * 99, b"<x/>")
            assert exif_directories(rows.exif)[1][34665][40961].number() == 1
        with tifffile.TiffFile(path) as tiff:
            assert tiff.pages[0].tags[34665].value == {"ColorSpace": 1}
            assert tiff.pages[0].iccprofile == b"i" * 99


def test_orientation_of_rows(tmp_path):
    path, picture = tmp_path / "a.tiff", samples((9, 4, 3), np.uint8)
    for orientation in (1, 2, 3, 4):
        tag = (274, 3, 1, orientation, True)
        tifffile.imwrite(path, picture, photometric="rgb", rowsperstrip=2, extratags=[tag])
        with TiffRows(path) as rows:
            bands = np.concatenate([rows.read(0, 5), rows.read(5, 9)])
        np.testing.assert_array_equal(bands, read_picture(path).pixels)
    tifffile.imwrite(path, picture, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    with pytest.raises(ImageError, match="orientation 6 swaps rows and columns"):
        TiffRows(path)


def test_overlapping_bands_decode_each_strip_once(tmp_path, monkeypatch):
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, samples((100, 20), np.uint8), compression="zlib", rowsperstrip=10)
    decoded = []
    inflate = tiff.TiffPage._inflate

    def counted(self, data, row_bytes, n):
        decoded.append(len(data))
        return inflate(self, data, row_bytes, n)

    monkeypatch.setattr(tiff.TiffPage, "_inflate", counted)
    with TiffRows(path) as rows:
        for y in range(0, 100, 20):
            rows.read(max(0, y - 10), min(100, y + 30))
    assert len(decoded) == 10


def test_memory_is_a_band(tmp_path):
    # 48 MB of samples, through bands of 64 rows
    path, height, width = tmp_path / "a.tiff", 4000, 4000
    band = samples((64, width, 3), np.uint8)
    tracemalloc.start()
    with TiffRowWriter(path, Raster(height, width, 3, np.uint8), level=1) as writer:
        for y in range(0, height, 64):
            writer.write(band[: min(64, height - y)])
    with TiffRows(path) as rows:
        for y in range(0, height, 400):
            np.testing.assert_array_equal(rows.read(y, y + 10)[0], band[y % 64])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # twelve strips of a mebibyte, their copies, and a band: not the picture
    assert peak < 2**25


def test_an_uncompressed_picture_in_one_strip_is_read_in_parts(tmp_path):
    path, picture = tmp_path / "a.tiff", samples((3000, 3000), np.uint8)
    tifffile.imwrite(path, picture)
    tracemalloc.start()
    with TiffRows(path) as rows:
        np.testing.assert_array_equal(rows.read(2990, 3000)[..., 0], picture[2990:])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21


def test_an_unfinished_or_failed_file_does_not_appear(tmp_path):
    path, row = tmp_path / "a.tiff", np.zeros((1, 5, 3), np.uint8)

    def write(bands, path=path):
        with TiffRowWriter(path, Raster(4, 5, 3, np.uint8)) as writer:
            for band in bands:
                writer.write(band)

    def interrupted():
        yield row
        raise KeyboardInterrupt

    with pytest.raises(OutputError, match="only 1 of 4 rows came"):
        write([row])
    with pytest.raises(KeyboardInterrupt):
        write(interrupted())
    with pytest.raises(ValueError, match="5 rows written; the picture has 4"):
        write([np.repeat(row, 5, axis=0)])
    with pytest.raises(ValueError, match=r"expected \[n, 5, 3\] uint8"):
        write([row.astype(np.uint16)])
    with pytest.raises(OutputError, match="create the folder first"):
        write([row], path=tmp_path / "no" / "a")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "has_package", lambda _: False)
    image = Image.fromarray(samples((16, 16, 3), np.uint8))
    image.save(tmp_path / "a.tiff", compression="jpeg")
    with pytest.raises(ImageError, match=r"JPEG.* cannot be decoded in parts"):
        TiffRows(tmp_path / "a.tiff")
    with Image.open(tmp_path / "a.tiff") as theirs:
        np.testing.assert_array_equal(read_picture(tmp_path / "a.tiff").pixels, np.array(theirs))
    image.save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="is png, not tiff"):
        TiffRows(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tiff", samples((4, 4), np.uint8).astype(np.int16))
    with pytest.raises(ImageError, match="sample format 2"):
        TiffRows(tmp_path / "b.tiff")
    with pytest.raises(ImageError, match="sample format 2"):
        read_picture(tmp_path / "b.tiff")


def test_damaged_strips_are_errors(tmp_path):
    path = tmp_path / "a.tiff"
    write_picture(path, Picture(samples((50, 50, 3), np.uint16)), fmt="tiff")
    data = bytearray(path.read_bytes())
    data[500:520] = bytes(20)
    path.write_bytes(data)
    with TiffRows(path) as rows, pytest.raises(ImageError, match="damaged"):
        rows.read(0, 50)
    with TiffRows(path) as rows, pytest.raises(ValueError, match="rows 0 to 51"):
        rows.read(0, 51)
    # a strip that inflates to less than its rows
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8), compression="zlib")
    short_strip = zlib.compress(bytes(7))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags[273].overwrite(path.stat().st_size)
        tiff.pages[0].tags[279].overwrite(len(short_strip))
    with path.open("ab") as file:
        file.write(short_strip)
    with TiffRows(path) as rows, pytest.raises(ImageError, match="holds 7 of 16 bytes"):
        rows.read(0, 4)


def test_strips_that_were_never_written(tmp_path):
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8), rowsperstrip=2)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        at = tiff.pages[0].tags[279].valueoffset
        code = tiff.pages[0].tags[279].dtype
    size = 2 if code == 3 else 4
    data = bytearray(path.read_bytes())
    data[at + size : at + 2 * size] = struct.pack("<I", 0)[:size]
    path.write_bytes(data)
    with pytest.raises(ImageError, match="1 of 2 strips or tiles were never written"):
        read_picture(path)
