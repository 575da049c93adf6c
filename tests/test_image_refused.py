"""Files that are damaged, hostile or not pictures, and results that cannot be written."""

from __future__ import annotations

import errno
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from restore.errors import ImageError, OutputError, UsageError
from restore.image_io import FORMATS, Picture, probe, read_picture, write_picture
from restore.image_io.picture import PictureInfo
from restore.image_io.png import SIGNATURE, chunk
from restore.image_io.source import Opened, check_opened

RNG = np.random.default_rng(0)


def picture(dtype=np.uint8, height=40, width=30):
    return Picture(RNG.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype=dtype))


def encoded(fmt, dtype, tmp_path):
    write_picture(tmp_path / "whole", picture(dtype), fmt=fmt)
    data = (tmp_path / "whole").read_bytes()
    (tmp_path / "whole").unlink()
    return data


def refused(path, **options):
    with pytest.raises(ImageError) as caught:
        read_picture(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message


def png_of(width, height, bits, colour, data, extra=b""):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return SIGNATURE + body


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "is no picture but text, beginning '<html>"),
        (b"GIF89a" + bytes(60), "is a GIF, which is not supported"),
        (b"\0\0\0\x18ftypheic" + bytes(60), "HEIC"),
        (bytes(64), "no picture of a known format (first bytes 00 00"),
        (b"\x89PNG\r\n\x1a\n", "cut short"),
        (b"\xff\xd8\xff", "damaged"),
        (b"II*\0\xff\xff\xff\x7f", "damaged"),
    ],
    ids=["empty", "text", "gif", "heic", "zeros", "png start", "jpg start", "tiff start"],
)
def test_what_is_no_picture(data, reason, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert reason in refused(path)


def test_what_is_no_readable_file(tmp_path):
    assert "no such file" in refused(tmp_path / "missing.png")
    assert "is a folder" in refused(tmp_path)
    (tmp_path / "file").touch()
    assert "cannot be read" in refused(tmp_path / "file" / "a.png")
    path = tmp_path / "locked.png"
    path.touch(mode=0)
    if not os.access(path, os.R_OK):
        assert "cannot be read: Permission denied" in refused(path)


@pytest.mark.parametrize(
    ("fmt", "dtype"),
    [(fmt, np.uint8) for fmt in FORMATS] + [("png", np.uint16), ("tiff", np.uint16)],
)
def test_truncated_files(fmt, dtype, tmp_path):
    data = encoded(fmt, dtype, tmp_path)
    path = tmp_path / "a"
    for kept in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(data[: int(len(data) * kept)])
        refused(path)


def test_truncated_tiff_of_another_program(tmp_path):
    path = tmp_path / "a.tiff"
    for compression in (None, "zlib"):
        tifffile.imwrite(path, picture(np.uint16).pixels, compression=compression)
        path.write_bytes(path.read_bytes()[:-100])
        assert "cut short" in refused(path)


def test_png_that_ends_at_a_chunk(tmp_path):
    path = tmp_path / "a.png"
    for bits in (8, 16):
        data = encoded("png", np.dtype(f"u{bits // 8}"), tmp_path)
        path.write_bytes(data[:-12])  # no IEND
        assert "cut short" in refused(path)
        half = zlib.compress(bytes(10))
        path.write_bytes(png_of(30, 40, bits, 2, half))
        refused(path)
    path.write_bytes(png_of(30, 40, 8, 2, zlib.compress(bytes(91 * 40)))[:-20] + bytes(20))
    refused(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fmt=st.sampled_from(FORMATS),
    deep=st.booleans(),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_damage_is_an_image_error_or_a_picture(fmt, deep, changes, kept, tmp_path):
    data = bytearray(encoded(fmt, np.uint16 if deep else np.uint8, tmp_path))
    for where, value in changes:
        # squared: most of what matters stands at the beginning
        data[int(where**2 * (len(data) - 1))] = value
    path = tmp_path / "a"
    path.write_bytes(data[: int(len(data) * kept)])
    try:
        got = read_picture(path, max_pixels=10_000)
        assert probe(path).width == got.pixels.shape[1]
    except ImageError as error:
        assert str(error).startswith(f"{path}: ")


def test_animations_and_pages(tmp_path):
    frames = [Image.fromarray(picture().pixels) for _ in range(3)]
    for fmt in ("PNG", "WEBP", "TIFF"):
        path = tmp_path / f"a.{fmt}"
        frames[0].save(path, fmt, save_all=True, append_images=frames[1:])
        message = refused(path)
        assert "holds 3 frames or pages" in message and "split" in message
        assert probe(path).n_frames == 3


def test_a_tiff_with_a_smaller_copy_is_one_picture(tmp_path):
    path, pixels = tmp_path / "a.tiff", picture().pixels
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels[::2, ::2], photometric="rgb", subfiletype=1)
        writer.write(pixels, photometric="rgb")
        writer.write(pixels[::4, ::4], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read_picture(path).pixels, pixels)


def test_bomb_by_its_header(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_of(60_000, 60_000, 8, 2, zlib.compress(bytes(1000))))
    message = refused(path)
    assert "60000 x 60000 is 3,600,000,000 pixels" in message and "--max-pixels" in message
    assert probe(path).width == 60_000
    path.write_bytes(png_of(0, 5, 8, 2, b""))
    assert "claims 0 x 5 pixels" in refused(path)
    path.write_bytes(png_of(30, 40, 8, 0, zlib.compress(bytes(31 * 40))))
    assert "above the limit of 1,199" in refused(path, max_pixels=1199)
    assert read_picture(path, max_pixels=1200).pixels.shape == (40, 30, 1)


def test_bomb_by_its_ratio(tmp_path):
    path = tmp_path / "a.png"
    rows = zlib.compress(bytes(2049 * 16384), 9)  # one bit a pixel
    path.write_bytes(png_of(16384, 16384, 1, 0, rows))
    tracemalloc.start()
    message = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "claim to decode to 268,435,456" in message and "--max-pixels 0" in message
    assert peak < 2**22


def test_honest_flat_pictures_pass(tmp_path):
    # 50 megapixels of 16-bit RGB at the best ratio that deflate has
    info = PictureInfo(10_000, 5_000, 3, 16, "png", False, 1)
    size = 10_000 * 5_000 * 6
    check_opened("a.png", Opened(info, size, 1, lambda: picture()), size // 1032, 2**28)
    flat = Picture(np.full((2000, 2000, 3), 9, np.uint8))
    for fmt in FORMATS:
        write_picture(tmp_path / "flat", flat, fmt=fmt)
        assert read_picture(tmp_path / "flat").pixels.shape == (2000, 2000, 3)


def test_no_limit_of_a_library_applies(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for fmt in FORMATS:
        write_picture(tmp_path / "a", picture(), fmt=fmt)
        assert read_picture(tmp_path / "a").pixels.shape == (40, 30, 3)


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt"])
def test_a_small_chunk_cannot_fill_the_memory(kind, tmp_path):
    inflated = zlib.compress(bytes(2**28), 9)
    key = {b"iCCP": b"name\0\0", b"zTXt": b"Raw profile type exif\0\0"}.get(kind)
    key = key or b"XML:com.adobe.xmp\0\1\0\0\0"
    data = png_of(3, 2, 8, 0, zlib.compress(bytes(8)), chunk(kind, key + inflated))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    tracemalloc.start()
    got = read_picture(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (got.icc, got.exif, got.xmp) == (None, None, None)
    assert peak < 2**26


def test_a_tiff_strip_that_inflates_too_far(tmp_path):
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8), compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0]
        bomb = zlib.compress(bytes(2**28), 9)
        page.tags[273].overwrite(os.path.getsize(path))
        page.tags[279].overwrite(len(bomb))
    with path.open("ab") as file:
        file.write(bomb)
    tracemalloc.start()
    assert not read_picture(path).pixels.any()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


def test_not_finite(tmp_path):
    pixels = np.full((2, 2, 3), np.nan, np.float32)
    tifffile.imwrite(tmp_path / "a.tiff", pixels, photometric="rgb")
    assert "NaN" in refused(tmp_path / "a.tiff")
    with pytest.raises(OutputError, match="NaN"):
        write_picture(tmp_path / "b.png", Picture(pixels), fmt="png")
    tifffile.imwrite(tmp_path / "c.tiff", pixels * 0 + 3, photometric="rgb")
    refused(tmp_path / "c.tiff")


def test_a_damaged_exif_block_is_left_out_with_a_note(tmp_path):
    broken = Picture(picture().pixels, exif=b"no tiff header at all")
    notes = write_picture(tmp_path / "a.png", broken, fmt="png")
    assert "EXIF block is damaged" in notes[0]
    assert read_picture(tmp_path / "a.png").exif is None


@pytest.mark.parametrize("fmt", FORMATS)
def test_places_that_cannot_be_written(fmt, tmp_path):
    (tmp_path / "file").touch()
    for path, remedy in (
        (tmp_path / "no" / "a", "create the folder first"),
        (tmp_path / "file" / "a", "a part of the path is a file"),
        (tmp_path, "it is a folder"),
    ):
        with pytest.raises(OutputError, match=remedy) as caught:
            write_picture(path, picture(), fmt=fmt)
        assert str(path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_full_disk_leaves_what_was_there(fmt, call, tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"before")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        write_picture(path, picture(), fmt=fmt)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_write_that_fails_half_way(fmt, tmp_path):
    resource = pytest.importorskip("resource", reason="needs limits on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written: File too large"):
            write_picture(tmp_path / "a", picture(np.uint8, 300, 300), fmt=fmt)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_interrupt_leaves_nothing(fmt, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_picture(tmp_path / "a", picture(), fmt=fmt)
    assert not list(tmp_path.iterdir())


def test_what_an_encoder_cannot_take(tmp_path):
    for fmt, side in (("webp", 16384), ("jpg", 65501)):
        with pytest.raises(OutputError, match=f"{fmt} takes at most .* choose png or tiff"):
            write_picture(tmp_path / "a", Picture(np.zeros((1, side, 1), np.uint8)), fmt=fmt)
    assert not list(tmp_path.iterdir())


def test_names_links_and_rights(tmp_path):
    long = tmp_path / ("é" * 100 + "画.png")
    write_picture(long, picture(), fmt="png")
    assert read_picture(long).notes == ()
    long.chmod(0o640)
    link = tmp_path / "link.png"
    try:
        link.symlink_to(long)
    except OSError:
        pytest.skip("needs symbolic links")
    new = picture()
    write_picture(link, new, fmt="png")
    assert link.is_symlink()
    np.testing.assert_array_equal(read_picture(long).pixels, new.pixels)
    assert os.name == "nt" or long.stat().st_mode & 0o777 == 0o640


def test_sixteen_bit_data_that_a_library_would_half_decode(tmp_path):
    # every chunk is whole and its checksum right; only the pixels end too early
    data = encoded("png", np.uint16, tmp_path)
    at = data.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", data, at)
    half = data[at + 8 : at + 8 + length // 2]
    broken = data[:at] + chunk(b"IDAT", half) + chunk(b"IEND", b"")
    path = tmp_path / "a.png"
    path.write_bytes(broken)
    assert "inflates to" in refused(path)


def test_wrong_arguments_are_refused(tmp_path):
    path, whole = tmp_path / "a", picture()
    with pytest.raises(UsageError, match="gif"):
        write_picture(path, whole, fmt="gif")
    with pytest.raises(UsageError, match="quality is 0"):
        write_picture(path, whole, fmt="jpg", quality=0)
    with pytest.raises(UsageError, match="no lossless form"):
        write_picture(path, whole, fmt="jpg", lossless=True)
    with pytest.raises(ValueError, match="alpha is"):
        write_picture(path, Picture(whole.pixels, whole.pixels[..., 0][1:]), fmt="png")
    assert not list(tmp_path.iterdir())
