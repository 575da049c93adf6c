"""The arithmetic and the small formats beneath reading and writing pictures."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore.image_io.exif import (
    Entry,
    build_exif,
    encode_ifd,
    exif_directories,
    fit_exif,
    fit_xmp,
    long,
    orientation_of,
    parse_exif,
    rational,
    read_ifd,
    resolution_entries,
    resolution_of,
    short,
    with_resolution,
)
from restore.image_io.picture import on_white, to_depth, unpremultiply, upright
from restore.image_io.png import _ADAM7, SIGNATURE, chunk, decode, scan


def test_rounding_is_to_the_nearest():
    every = np.arange(65536, dtype=np.uint16)[None]
    assert (to_depth(every, 8) == np.floor(every / 257 + 0.5)).all()
    assert (to_depth(every.astype(np.float32) / 65535, 16) == every).all()
    eight = np.arange(256, dtype=np.float32)[None] / 255
    assert (to_depth(eight, 8) == np.arange(256)).all()
    assert list(to_depth(np.array([-1, 2, 0.9999], np.float32), 8)) == [0, 255, 255]


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_alpha_arithmetic(value, cover):
    pixels, alpha = np.array([[[value]]], np.uint16), np.array([[cover]], np.uint16)
    laid = int(on_white(pixels, alpha)[0, 0, 0])
    exact = (value * cover + 65535 * (65535 - cover)) / 65535
    assert abs(laid - exact) <= 0.5
    premultiplied = np.array([[[(value * cover + 32767) // 65535]]], np.uint16)
    back = int(unpremultiply(premultiplied, alpha)[0, 0, 0])
    # half a step of the premultiplied value, made larger by the division, and half a step here
    assert back == 0 if cover == 0 else abs(back - value) <= 0.5 * 65535 / cover + 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_moves_the_first_pixel_where_the_standard_says(orientation):
    stored = np.arange(6).reshape(2, 3)
    # Exif: which edges of the upright picture the first row and the first column become
    row, column = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    got = upright(stored, orientation)
    edges = {"top": got[0], "bottom": got[-1], "left": got[:, 0], "right": got[:, -1]}
    assert sorted(edges[row]) == [0, 1, 2]
    assert sorted(edges[column]) == [0, 3]


entries = st.dictionaries(
    st.integers(300, 60000),
    st.one_of(
        st.integers(0, 65535).map(short),
        st.integers(0, 2**32 - 1).map(long),
        st.binary(min_size=1, max_size=20).map(lambda b: Entry(7, len(b), b)),
    ),
    max_size=6,
)


@given(entries, st.integers(0, 9), st.booleans())
def test_directories_come_back(ifd, offset, big):
    file = io.BytesIO(bytes(offset) + encode_ifd(ifd, offset, big))
    got, following = read_ifd(file, offset, "<", big)
    assert {tag: (e.kind, e.count, e.data) for tag, e in got.items()} == {
        tag: (e.kind, e.count, e.data) for tag, e in ifd.items()
    }
    assert following == 0


@given(st.binary(max_size=80), st.sampled_from([b"II*\0", b"MM\0*", b""]))
def test_any_exif_bytes_are_read_or_refused(data, magic):
    block = magic + data
    assert orientation_of(block) in range(1, 9)
    try:
        fitted = fit_exif(block, 70_000, 1)
    except ValueError:
        return
    assert len(fitted) <= len(block)


@given(st.floats(0.01, 1e6))
def test_fractions(value):
    above, below = struct.unpack("<II", rational(value).data)
    # the nearest with that denominator: half of 1 / 10,000, or half of 1 for the largest
    assert abs(above / below - value) <= (0.5e-4 if value < 4e5 else 0.5)


def test_resolution_units():
    ifd = resolution_entries((300, 150))
    assert resolution_of(ifd) == (300, 150)
    assert resolution_of({**ifd, 296: short(3)}) == (762, 381)
    assert resolution_of({**ifd, 296: short(1)}) is None


def test_a_size_beyond_sixteen_bits_gets_a_longer_type():
    exif = build_exif({274: short(8)}, {34665: {40962: short(7), 40963: long(9)}})
    fitted = fit_exif(exif, 100_000, 50)
    details = exif_directories(fitted)[1][34665]
    assert (details[40962].number(), details[40963].number()) == (100_000, 50)
    assert parse_exif(fitted)[1][274].number() == 1


def test_entries_that_share_bytes_do_not_fill_the_memory():
    n, length = 1000, 2**24
    table = b"".join(struct.pack("<HHII", tag, 7, length, 16384) for tag in range(n))
    block = b"II*\0" + struct.pack("<IH", 8, n) + table
    file = io.BytesIO(block.ljust(16384, b"\0") + bytes(length))
    tracemalloc.start()
    read_ifd(file, 8, "<")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**27


def test_xmp_in_both_notations():
    packet = (
        b"<a tiff:Orientation='6'><tiff:ImageWidth>33</tiff:ImageWidth><exif:Other>5</exif:Other>"
    )
    wanted = packet.replace(b">33<", b">44<")
    # a reader of the result turns it as it turned the original
    assert fit_xmp(packet, 44, 55, None) == wanted
    assert fit_xmp(packet, 44, 55, build_exif({270: Entry(2, 2, b"a\0")}, {})) == wanted
    # EXIF comes first, and what it says was applied
    stated = build_exif({274: short(6)}, {})
    assert fit_xmp(packet, 44, 55, stated) == wanted.replace(b"'6'", b"'1'")


@pytest.mark.parametrize("order", ["<", ">"])
def test_resolution_is_added_to_a_block_that_has_none(order):
    kind = {"<": b"II*\0", ">": b"MM\0*"}[order]
    make = struct.pack(order + "HHI", 271, 2, 4) + b"Abc\0"
    unit = struct.pack(order + "HHIHH", 296, 3, 1, 3, 0)
    maker = b"odd"  # whatever stands behind the directory keeps its place
    block = kind + struct.pack(order + "IH", 8, 2) + make + unit + bytes(4) + maker
    got = with_resolution(block, (300.0, 72.5))
    assert got[8 : len(block)] == block[8:]
    found, ifd0, following = parse_exif(got)
    assert (found, following) == (order, 0)
    assert ifd0[271].data == b"Abc\0"
    assert resolution_of(ifd0) == (300.0, 72.5)


@pytest.mark.parametrize(
    "text", [b'{"shape": [3, 4]}', b"ImageJ=1.53\nimages=1", b'<?xml version="1.0"?><OME xmlns="">']
)
def test_a_description_of_sizes_does_not_travel(text):
    entries = {270: Entry(2, len(text), text), 271: Entry(2, 2, b"a\0")}
    assert set(parse_exif(build_exif(entries, {}))[1]) == {271}
    words = b"A shape and an image"
    assert 270 in parse_exif(build_exif({270: Entry(2, len(words), words)}, {}))[1]


@pytest.mark.parametrize("packed", [True, False])
def test_exif_that_a_png_holds_as_text(packed):
    exif = build_exif({274: short(6)}, {})
    text = b"\nexif\n      %d\n" % (len(exif) + 6) + (b"Exif\0\0" + exif).hex().encode()
    name = b"Raw profile type exif\0"
    data = name + (b"\0" + zlib.compress(text) if packed else text)
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"zTXt" if packed else b"tEXt", data)
    body += chunk(b"IDAT", zlib.compress(bytes(2))) + chunk(b"IEND", b"")
    assert scan(io.BytesIO(SIGNATURE + body)).exif == exif


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 9))
def test_interlaced_sixteen_bits(height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 65536, (height, width, 3), dtype=np.uint16)
    rows = b""
    for x, y, dx, dy in _ADAM7:
        for row in pixels[y::dy, x::dx] if width > x else ():
            rows += b"\0" + row.astype(">u2").tobytes()
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 1)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    file = io.BytesIO(SIGNATURE + body)
    np.testing.assert_array_equal(decode(file, scan(file)).pixels, pixels, strict=True)
