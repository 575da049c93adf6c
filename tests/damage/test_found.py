"""Defects that damaged files brought to light, each with the least file that shows it."""

from __future__ import annotations

import io
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from damage_cases import case
from damage_seeds import exif, seeds
from PIL import Image

from restore.errors import ImageError, UsageError
from restore.image_io import FORMATS, Picture, probe, read_picture, write_picture
from restore.image_io.exif import (
    Entry,
    encode_ifd,
    fit_exif,
    orientation_of,
    parse_exif,
    resolution_of,
)
from restore.image_io.png import SIGNATURE, chunk
from restore.training.option_file import LARGEST, MOST_VALUES, read_file
from restore.training.options import read_options

PIXELS = np.arange(13 * 20 * 3, dtype=np.uint8).reshape(13, 20, 3)


def read(data: bytes, folder: Path) -> Picture:
    (folder / "a").write_bytes(data)
    return read_picture(folder / "a")


def refused(data: bytes, folder: Path) -> str:
    began = time.process_time()
    with pytest.raises(ImageError) as caught:
        read(data, folder)
    assert time.process_time() - began < 10
    return str(caught.value)


def png(rows: bytes, extra: bytes = b"", bits: int = 16, size: tuple[int, int] = (3, 2)) -> bytes:
    head = struct.pack(">IIBBBBB", *size, bits, 0, 0, 0, 0)
    data = chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return SIGNATURE + chunk(b"IHDR", head) + extra + data


# pictures


@pytest.mark.parametrize(
    "form", [(3, 2, b"\6\0\0\0"), (1, 1, b"\6"), (4, 2, bytes(8)), (12, 1, bytes(8))]
)
def test_an_orientation_that_cannot_be_set_is_none(
    form: tuple[int, int, bytes], tmp_path: Path
) -> None:
    """It was applied, stayed in the result, and turned that once more."""
    block = b"II*\0\x08\0\0\0" + encode_ifd({274: Entry(*form)}, 8)
    assert orientation_of(block) == 1
    picture = Picture(PIXELS, exif=block)
    for fmt in FORMATS:
        write_picture(tmp_path / "a", picture, fmt=fmt)
        assert read_picture(tmp_path / "a").pixels.shape == PIXELS.shape


def test_extra_samples_that_are_not_there_are_no_alpha(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, PIXELS, photometric="rgb", extratags=[(338, 3, 1, 2, True)])
    picture = read_picture(path)
    assert picture.alpha is None
    assert np.array_equal(picture.pixels, PIXELS)
    assert not probe(path).has_alpha


def test_a_colour_key_of_another_length_is_no_alpha(tmp_path: Path) -> None:
    rows = zlib.compress(b"".join(b"\0" + bytes(6) for _ in range(2)))
    data = png(rows, chunk(b"tRNS", b"\0\0\0"))
    assert read(data, tmp_path).alpha is None
    assert not probe(tmp_path / "a").has_alpha


def test_alpha_that_a_webp_file_promises_is_there_or_missed_aloud(tmp_path: Path) -> None:
    data = bytearray(seeds("webp")["lossy"])
    assert data[12:16] == b"VP8X"
    data[20] |= 0x10
    assert not read(bytes(data), tmp_path).notes[1:]
    assert not probe(tmp_path / "a").has_alpha
    for name in ("webp/0/2080", "webp/0/2667"):  # in the wrong place, and the decoder passes it by
        picture = read(case(name).data, tmp_path)
        lost = "its alpha is damaged and was left out" in picture.notes
        assert probe(tmp_path / "a").has_alpha == (lost or picture.alpha is not None)


def test_sixteen_bits_with_more_than_rows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Libpng wrote of it to the screen."""
    rows = b"".join(b"\0" + bytes([0, row, 1, 2, 3, 4]) for row in range(2))
    whole = read(png(zlib.compress(rows)), tmp_path).pixels
    more = (
        zlib.compress(rows + bytes(100)),
        zlib.compress(rows) + b"behind",
        zlib.compress(rows + bytes(2**21)),
    )
    for data in more:
        assert np.array_equal(read(png(data), tmp_path).pixels, whole)
    with_more = png(zlib.compress(rows)).replace(chunk(b"IEND", b""), chunk(b"IDAT", b"x") * 3)
    assert np.array_equal(read(with_more + chunk(b"IEND", b""), tmp_path).pixels, whole)
    assert "row 1 has the filter 5" in refused(
        png(zlib.compress(rows[:7] + b"\5" + rows[8:])), tmp_path
    )
    assert "cut short behind the last row" in refused(png(zlib.compress(rows)[:-4]), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_keyword_without_end_is_no_note(tmp_path: Path) -> None:
    rows = zlib.compress(b"".join(b"\0" + bytes(6) for _ in range(2)))
    picture = read(png(rows, chunk(b"tEXt", b"\x1b[2J" * 10_000)), tmp_path)
    assert max(map(len, picture.notes)) < 200


def test_a_file_of_empty_chunks_ends(tmp_path: Path) -> None:
    assert "more than 1,048,576 chunks" in refused(png(b"", chunk(b"abcd", b"") * 2**20), tmp_path)


def test_a_chunk_of_no_name_is_named(tmp_path: Path) -> None:
    text = refused(SIGNATURE + b"\0\0\1\0\x1b[2J" + bytes(20), tmp_path)
    assert "cut short within its 1b 5b 32 4a chunk" in text


@pytest.mark.parametrize("big", [False, True])
def test_pages_that_lead_back_to_themselves_end(big: bool, tmp_path: Path) -> None:
    out = io.BytesIO()
    tifffile.imwrite(out, PIXELS, photometric="rgb", bigtiff=big)
    data = bytearray(out.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
        at, count = tiff.pages[0].offset, len(tiff.pages[0].tags)
    link = at + (8 + 20 * count if big else 2 + 12 * count)
    struct.pack_into("<Q" if big else "<I", data, link, at)
    assert "more than 10,000 pages, or they lead back" in refused(bytes(data), tmp_path)


def test_a_progressive_file_of_a_thousand_scans_ends(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (2000, 2000)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    at = data.rindex(b"\xff\xda")
    assert "it has 1009 scans" in refused(data[:at] + data[at:-2] * 1000 + b"\xff\xd9", tmp_path)
    assert read(data, tmp_path).pixels.shape == (2000, 2000, 3)


def test_twelve_bits_take_little_memory_on_the_way(tmp_path: Path) -> None:
    """Each was a number of 12 others, of 4 bytes each, for the whole strip."""
    import tracemalloc

    height, width = 2000, 2000
    packed = bytes(range(250)) * (height * width * 12 // 8 // 250)
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 277: 1, 278: height}
    entries = {tag: Entry(4, 1, struct.pack("<I", value)) for tag, value in tags.items()}
    entries |= {273: Entry(4, 1, bytes(4)), 279: Entry(4, 1, struct.pack("<I", len(packed)))}
    start = 8 + len(encode_ifd(entries, 8))
    entries[273] = Entry(4, 1, struct.pack("<I", start))
    (tmp_path / "a").write_bytes(b"II*\0\x08\0\0\0" + encode_ifd(entries, 8) + packed)
    tracemalloc.start()
    picture = read_picture(tmp_path / "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    bits = np.unpackbits(np.frombuffer(packed, np.uint8)).reshape(height, width, 12)
    values = bits.astype(np.uint32) @ (1 << np.arange(11, -1, -1)).astype(np.uint32)
    assert np.array_equal(picture.pixels[..., 0], (values * 65535 + 2047) // 4095)
    assert peak < 40 * height * width


def test_numbers_beyond_what_is_kept_are_refused_without_a_warning(tmp_path: Path) -> None:
    out = io.BytesIO()
    tifffile.imwrite(out, np.full((4, 4), 1e300), photometric="minisblack")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "hold NaN or infinity" in refused(out.getvalue(), tmp_path)


@pytest.mark.parametrize("kind", [11, 12])
def test_directories_and_resolutions_of_no_number(kind: int, tmp_path: Path) -> None:
    for value in (float("inf"), float("nan"), -1.0, 3e38, 1e-40):
        number = struct.pack("<f" if kind == 11 else "<d", value)
        entries = {tag: Entry(kind, 1, number) for tag in (282, 283, 34665, 34853)}
        block = b"II*\0\x08\0\0\0" + encode_ifd(entries, 8)
        fit_exif(block, 3, 3)
        found = resolution_of(parse_exif(block)[1])
        picture = Picture(PIXELS, exif=block, dpi=found)
        for fmt in FORMATS:
            write_picture(tmp_path / "a", picture, fmt=fmt)
            assert np.array_equal(read_picture(tmp_path / "a").pixels.shape, PIXELS.shape)


def test_a_resolution_beyond_what_a_format_counts(tmp_path: Path) -> None:
    for dpi in ((2.0**31 - 1, 1.0), (1e-9, 5.0)):
        for fmt in FORMATS:
            write_picture(tmp_path / "a", Picture(PIXELS, dpi=dpi), fmt=fmt)
            assert read_picture(tmp_path / "a").pixels.shape == PIXELS.shape


def test_libraries_do_not_speak_of_damage(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from restore.cli import main

    block = bytearray(exif())
    block[14:18] = b"\xff\xff\xff\x0f"  # more values than the file has
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + bytes(block))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["info", str(tmp_path / "a.jpg")]) == 0
    assert capfd.readouterr().err == ""


# option files


def told(text: str, folder: Path) -> str:
    path = folder / "run.yml"
    path.write_text(text, encoding="utf-8")
    began = time.process_time()
    with pytest.raises(UsageError) as caught:
        read_options(path, is_train=True)
    assert time.process_time() - began < 10
    message = str(caught.value)
    assert message.startswith(f"{path}")
    assert len(message) < 4000
    return message


def test_a_merge_of_itself_ends(tmp_path: Path) -> None:
    assert "no end of depth; does an anchor hold itself?" in told("a: &a\n  <<: *a\n", tmp_path)


def test_merges_of_nothing_that_double_end(tmp_path: Path) -> None:
    lines = ["m0: &m0 {}"]
    lines += [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, 16)]
    assert f"more than {MOST_VALUES:,} values" in told("\n".join(lines), tmp_path)


def test_digits_that_are_no_number_end(tmp_path: Path) -> None:
    told(f"name: {'1' * (LARGEST - 100)}x\n", tmp_path)
    told(f"scale: 0x{'f' * 5000}\n", tmp_path)
    assert "is too long for a value of type int" in told(f"scale: {'9' * 5000}\n", tmp_path)


def test_a_setting_of_thousands_of_values_is_told_short(tmp_path: Path) -> None:
    text = seeds("yml")["train/swinir_small_x2"].decode()
    message = told(text.replace("  upscale: 2", f"  upscale: [{'0,' * 5000}]"), tmp_path)
    assert "upscale is [0, 0, 0" in message
    assert "]; expected a whole number" in message
    assert len(message) < 700


def test_a_file_of_another_program_is_told_soon(tmp_path: Path) -> None:
    message = told("".join(f"other_{i}: 1\n" for i in range(9000)), tmp_path)
    assert message.count("known here") == 1
    assert "and 8" in message.splitlines()[-1]


@pytest.mark.parametrize(
    "text",
    [
        'name: "\\U99999999"\n',
        "? " + "x" * 5000 + "\n: 1\n",
        f"{'k' * 1000}: 1\n",
        "!!python/object/apply:os.system [echo]\n",
        "name: !!python/name:" + "x" * 5000 + "\n",
        "<<: [" + "x" * 5000 + "]\n",
        "a: 1\na: 2\n",
        "name: !!int " + "x" * 2000 + "\n",
        "\x1b[2J: 1\n",
        "- 1\n" * 5000,
        "[" * 5000,
        "{a: " * 5000,
        "&a " * 3000,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_odd_options_are_told_in_a_line(text: str, tmp_path: Path) -> None:
    message = told(text, tmp_path)
    assert all(line.isprintable() and len(line) < 900 for line in message.split("\n"))


def test_the_largest_option_file_is_read_soon(tmp_path: Path) -> None:
    values = ", ".join(["1"] * 9000)
    text = f"a: [{values}]\n# {'x' * (LARGEST - 50_000)}\n"
    (tmp_path / "a.yml").write_text(text)
    began = time.process_time()
    assert len(read_file(tmp_path / "a.yml").plain()["a"]) == 9000
    assert time.process_time() - began < 10
    assert yaml.safe_load(text)["a"][0] == 1
