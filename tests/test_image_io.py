"""Pictures keep what they had: samples, depth, alpha, colour profile, EXIF, XMP and dpi."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from restore.image_io import (
    Picture,
    PictureInfo,
    auto_format,
    losses,
    probe,
    read_picture,
    write_picture,
)
from restore.image_io.picture import to_depth
from restore.image_io.png import chunk, scan

DTYPES = (np.uint8, np.uint16, np.float32)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" exif:PixelXDimension="7"/></x:xmpmeta>'
many = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def random_samples(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == np.float32:
        return rng.random(shape, dtype=np.float32)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def random_picture(height=9, width=7, channels=3, dtype=np.uint8, alpha=False, seed=0):
    pixels = random_samples((height, width, channels), dtype, seed)
    return Picture(pixels, random_samples((height, width), dtype, seed + 1) if alpha else None)


def camera_exif(orientation=1, width=7, height=9):
    """What a camera writes: IFD0, an EXIF and a GPS directory, a thumbnail behind them."""
    exif = Image.Exif()
    exif[271], exif[274], exif[306] = "Maker", orientation, "2024:01:02 03:04:05"
    details = exif.get_ifd(0x8769)
    details[33434], details[40962], details[40963] = 0.125, width, height
    details[37500] = b"opaque maker note"
    exif.get_ifd(0x8825)[1] = "N"
    block = exif.tobytes()[6:]
    (at,) = struct.unpack_from(">I", block, 4)
    (n,) = struct.unpack_from(">H", block, at)
    link, start = at + 2 + 12 * n, len(block)
    ifd1 = struct.pack(">HHHII", 2, 513, 4, 1, start + 30)
    ifd1 += struct.pack(">HHII", 514, 4, 1, 11) + bytes(4)
    return block[:link] + struct.pack(">I", start) + block[link + 4 :] + ifd1 + b"OLD PICTURE"


def exif_of(block):
    exif = Image.Exif()
    exif.load(block)
    return exif


def saved(image, fmt, **options):
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def read_bytes(tmp_path, data, name="a.png"):
    path = tmp_path / name
    path.write_bytes(data)
    return read_picture(path)


def raw_png(samples, colour, bits, extra=b""):
    """A PNG of unfiltered rows; samples [H, W, S] of 8 or 16 bits."""
    height, width, _ = samples.shape
    rows = samples.astype(">u2" if bits == 16 else "u1")
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(data))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


@many
@given(
    fmt=st.sampled_from(["png", "tiff", "webp", "bmp"]),
    dtype=st.sampled_from(DTYPES),
    channels=st.sampled_from([1, 3]),
    alpha=st.booleans(),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_lossless_formats_return_what_they_carry(
    fmt, dtype, channels, alpha, height, width, seed, tmp_path
):
    picture = random_picture(height, width, channels, dtype, alpha and fmt != "bmp", seed)
    path = tmp_path / f"a.{fmt}"
    notes = write_picture(path, picture, fmt=fmt, lossless=True)
    got = read_picture(path)

    pixels, cover = picture.pixels, picture.alpha
    depth = {"png": 16, "tiff": 32, "webp": 8, "bmp": 8}[fmt]
    if picture.depth > depth:
        pixels = to_depth(pixels, depth)
        cover = None if cover is None else to_depth(cover, depth)
    if fmt == "webp":
        pixels = np.broadcast_to(pixels, (height, width, 3))
    np.testing.assert_array_equal(got.pixels, pixels, strict=True)
    if got.alpha is None and cover is not None and fmt == "webp":
        assert (cover == 255).all() and "opaque" in notes[-1]
    else:
        np.testing.assert_array_equal(got.alpha, cover, strict=cover is not None)
    assert [note for note in notes if "opaque" not in note] == losses(fmt, picture)
    assert bool(losses(fmt, picture)) == (picture.depth > depth)
    assert got.notes == ()
    has_alpha = got.alpha is not None
    info = PictureInfo(width, height, got.pixels.shape[2], got.depth, fmt, has_alpha, 1)
    assert probe(path) == info


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)], ids=str)
@pytest.mark.parametrize("fmt", ["png", "jpg", "webp", "tiff", "bmp"])
def test_extreme_shapes(fmt, size, tmp_path):
    # flat, so that JPEG too has nothing to lose but its rounding
    picture = Picture(np.full((*size, 3), 100, np.uint8))
    write_picture(tmp_path / "a", picture, fmt=fmt)
    got = read_picture(tmp_path / "a")
    assert got.pixels.shape == (*size, 3) and got.source_format == fmt
    assert np.abs(got.pixels.astype(int) - 100).max() <= (fmt in ("jpg", "webp"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_other_programs_read_our_png(dtype, channels, alpha, tmp_path):
    # several bands of the encoder, and smooth content so that every filter is chosen somewhere
    y, x = np.mgrid[:700, :500]
    top = np.iinfo(dtype).max
    noise = random_samples((700, 500, channels), dtype) // 64
    wave = (np.sin(x / 30) * np.cos(y / 50) + 1)[..., None] * 0.4 * top
    pixels = wave.astype(dtype) + noise
    cover = (x * (top // 500)).astype(dtype) if alpha else None
    path = tmp_path / "a.png"
    write_picture(path, Picture(pixels, cover), fmt="png")
    theirs = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).reshape(700, 500, -1)
    colours = theirs[..., 2::-1] if theirs.shape[2] >= 3 else theirs
    np.testing.assert_array_equal(colours, np.broadcast_to(pixels, colours.shape))
    if alpha:
        np.testing.assert_array_equal(theirs[..., 3], cover)
    with path.open("rb") as file:
        places = scan(file).idat
    data = path.read_bytes()
    idat = b"".join(data[at : at + n] for at, n in places)
    # raises unless the checksum over all bands is right
    assert (
        len(data)
        < len(zlib.decompress(idat))
        == 700 * (1 + 500 * (channels + alpha) * pixels.itemsize)
    )


def test_jpeg_keeps_gray_and_colour_resolution(tmp_path):
    path = tmp_path / "a.jpg"
    noise = random_picture(300, 300)  # what overflows the buffer of a common encoder
    write_picture(path, noise, fmt="jpg", quality=100)
    # 4:4:4 without quantisation: only the two colour conversions and the DCT round
    assert np.abs(read_picture(path).pixels.astype(int) - noise.pixels).max() <= 4
    for quality, factors in ((None, (1, 1)), (90, (1, 1)), (89, (2, 2))):
        write_picture(path, noise, fmt="jpg", quality=quality)
        with Image.open(path) as image:
            assert image.layer[0][1:3] == factors
    write_picture(path, random_picture(channels=1), fmt="jpg")
    assert read_picture(path).pixels.shape == (9, 7, 1)


def test_lossy_webp_is_smaller_and_keeps_alpha(tmp_path):
    picture = random_picture(64, 64, alpha=True)
    write_picture(tmp_path / "lossy", picture, fmt="webp")
    write_picture(tmp_path / "exact", picture, fmt="webp", quality=100)
    assert (tmp_path / "lossy").stat().st_size < (tmp_path / "exact").stat().st_size
    np.testing.assert_array_equal(read_picture(tmp_path / "lossy").alpha, picture.alpha)
    np.testing.assert_array_equal(read_picture(tmp_path / "exact").pixels, picture.pixels)


@pytest.mark.parametrize("fmt", ["png", "jpg", "webp", "tiff", "bmp"])
def test_metadata_travels_or_is_named(fmt, tmp_path):
    picture = random_picture(20, 30)
    picture.icc, picture.exif, picture.xmp = SRGB, camera_exif(), XMP
    picture.dpi = (300.0, 150.0)
    if fmt == "webp":
        picture.exif = None  # which leaves its place to the dpi
    notes = write_picture(tmp_path / "a", picture, fmt=fmt)
    got = read_picture(tmp_path / "a")
    # pHYs and BMP count whole dots per metre: half a dot off at most
    assert got.dpi == pytest.approx((300, 150), abs=0.0254 / 2)
    if fmt == "bmp":
        assert notes == [f"bmp cannot carry {name}: left out" for name in ("ICC", "EXIF", "XMP")]
        assert (got.icc, got.exif, got.xmp) == (None, None, None)
        return
    assert notes == []
    assert got.icc == SRGB
    # without EXIF the packet's own orientation was applied to nothing
    stated = b'tiff:Orientation="6"' if fmt == "webp" else b'tiff:Orientation="1"'
    assert stated in got.xmp and b'PixelXDimension="30"' in got.xmp
    if fmt != "webp":
        exif = exif_of(got.exif)
        assert (exif[271], exif[274]) == ("Maker", 1)
        details = exif.get_ifd(0x8769)
        assert (details[33434], details[40962], details[40963]) == (0.125, 30, 20)
        assert details[37500] == b"opaque maker note" and exif.get_ifd(0x8825)[1] == "N"
    # and in the eyes of another program
    with Image.open(tmp_path / "a") as image:
        assert image.info["icc_profile"] == SRGB
        assert fmt == "webp" or image.getexif()[271] == "Maker"
        assert b"OLD PICTURE" not in (tmp_path / "a").read_bytes()


def test_webp_exif_travels(tmp_path):
    picture = random_picture()
    picture.exif, picture.dpi = camera_exif(orientation=6), (72, 72)
    assert write_picture(tmp_path / "a.webp", picture, fmt="webp") == []
    read = read_picture(tmp_path / "a.webp")
    got = exif_of(read.exif)
    assert (got[271], got[274]) == ("Maker", 1)
    # the block had no place for the resolution
    assert read.dpi == (72, 72) and (got[282], got[296]) == (72, 2)
    assert got.get_ifd(0x8769)[37500] == b"opaque maker note"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["png", "jpg", "webp", "tiff", "lzw"])
def test_orientation_is_applied_once(fmt, orientation, tmp_path):
    stored = Image.fromarray(np.kron(random_samples((2, 3), np.uint8), np.full((16, 16), 1, "u1")))
    exif = Image.Exif()
    exif[274], exif[271] = orientation, "Maker"
    options = {"lossless": True} if fmt == "webp" else {}
    if fmt == "lzw":
        options, fmt = {"compression": "tiff_lzw"}, "tiff"
    name = {"jpg": "jpeg"}.get(fmt, fmt)
    data = saved(stored, name, exif=exif, dpi=(100, 200), **options)
    got = read_bytes(tmp_path, data, f"a.{fmt}")
    with Image.open(io.BytesIO(data)) as image:
        want = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(np.broadcast_to(got.pixels, want.shape), want)
    assert exif_of(got.exif)[274] == 1 and exif_of(got.exif)[271] == "Maker"
    info = probe(tmp_path / f"a.{fmt}")
    assert (info.height, info.width) == want.shape[:2]
    if fmt in ("png", "tiff"):
        assert got.dpi == pytest.approx((200, 100) if orientation > 4 else (100, 200), abs=0.02)
    write_picture(tmp_path / "b", got, fmt=got.source_format)
    again = read_picture(tmp_path / "b")
    assert again.pixels.shape == got.pixels.shape
    assert fmt == "jpg" or (again.pixels == got.pixels).all()


def test_palettes(tmp_path):
    indices = random_samples((6, 5), np.uint8) % 4
    table = random_samples((4, 3), np.uint8)
    image = Image.fromarray(indices).convert("L")
    image.putpalette(table.tobytes())
    got = read_bytes(tmp_path, saved(image, "PNG", transparency=bytes([0, 77, 255])))
    np.testing.assert_array_equal(got.pixels, table[indices])
    np.testing.assert_array_equal(got.alpha, np.array([0, 77, 255, 255], "u1")[indices])
    assert probe(tmp_path / "a.png").has_alpha
    for fmt in ("BMP", "TIFF"):
        np.testing.assert_array_equal(
            read_bytes(tmp_path, saved(image, fmt), f"a.{fmt}").pixels, table[indices]
        )
    grays = np.array([9, 200, 30, 77], np.uint8)
    image.putpalette(np.repeat(grays, 3).tobytes())
    got = read_bytes(tmp_path, saved(image, "PNG"))
    np.testing.assert_array_equal(got.pixels, grays[indices][..., None])


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "BMP", "TIFF:group4", "TIFF:tiff_lzw"])
def test_one_bit_becomes_gray(fmt, tmp_path):
    bits = random_samples((13, 21), np.uint8) > 127
    name, _, compression = fmt.partition(":")
    options = {"compression": compression} if compression else {}
    got = read_bytes(tmp_path, saved(Image.fromarray(bits), name, **options), f"a.{name}")
    np.testing.assert_array_equal(got.pixels[..., 0], bits * np.uint8(255))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour", [0, 2])
def test_png_colour_key_becomes_alpha(bits, colour, tmp_path):
    samples = random_samples((4, 4, 1 + colour), np.uint16 if bits == 16 else np.uint8)
    samples[1, 2] = samples[3, 3]
    key = samples[3, 3].astype(">u2").tobytes()
    got = read_bytes(tmp_path, raw_png(samples, colour, bits, chunk(b"tRNS", key)))
    np.testing.assert_array_equal(got.pixels, samples)
    top = np.iinfo(samples.dtype).max
    np.testing.assert_array_equal(got.alpha, np.where((samples == samples[3, 3]).all(2), 0, top))


@pytest.mark.parametrize(("colour", "samples"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_png_ignores_gamma(colour, samples, tmp_path):
    stored = random_samples((5, 6, samples), np.uint16)
    gamma = chunk(b"gAMA", struct.pack(">I", 100000))
    got = read_bytes(tmp_path, raw_png(stored, colour, 16, gamma))
    both = got.pixels if got.alpha is None else np.dstack([got.pixels, got.alpha])
    np.testing.assert_array_equal(both, stored)
    assert got.notes == ("png gAMA other than 1/2.2 is not carried over",)


def cmyk_profile():
    """The smallest profile that is one: black is L* 0, cyan L* 50.2, anything else paper white."""
    # the last ink varies fastest: four inks at 0 and full
    corners = [(0 if i & 1 else 128 if i & 8 else 255, 128, 128) for i in range(16)]
    table = struct.pack(">4s4xBBBx", b"mft1", 4, 3, 2)
    table += struct.pack(">9i", *[65536, 0, 0, 0, 65536, 0, 0, 0, 65536])
    table += bytes(range(256)) * 4 + b"".join(map(bytes, corners)) + bytes(range(256)) * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    text = b"text\0\0\0\0plain\0\0\0"
    parts = ((b"A2B0", table), (b"A2B1", table), (b"wtpt", white), (b"cprt", text), (b"desc", text))
    at, tags, body = 132 + 12 * len(parts), struct.pack(">I", len(parts)), b""
    for name, data in parts:
        data += bytes(-len(data) % 4)
        tags += struct.pack(">4sII", name, at + len(body), len(data))
        body += data
    head = struct.pack(
        ">I4sI4s4s4s", at + len(body), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab "
    )
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + tags + body


@pytest.mark.parametrize("fmt", ["JPEG", "TIFF", "TIFF:jpeg"])
def test_cmyk(fmt, tmp_path):
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:, :8, 0] = 255
    image = Image.frombytes("CMYK", (16, 16), ink.tobytes())
    name, _, compression = fmt.partition(":")
    options = {"compression": compression} if compression else {}
    plain = read_bytes(tmp_path, saved(image, name, **options), f"a.{name}")
    # cyan ink left, paper right; JPEG rounds a little
    wanted = np.where(np.arange(16)[None, :, None] < 8, [0, 255, 255], [255, 255, 255])
    assert np.abs(plain.pixels.astype(int) - wanted).max() <= 3
    assert "without a CMYK profile" in plain.notes[-1] and plain.icc is None

    data = saved(image, name, icc_profile=cmyk_profile(), **options)
    managed = read_bytes(tmp_path, data, f"a.{name}")
    assert "by its ICC profile" in managed.notes[-1]
    # L* 50.2 in sRGB is 119.5; JPEG rounds a little
    wanted = np.where(np.arange(16)[None, :, None] < 8, 119.5, 255)
    assert np.abs(managed.pixels - wanted).max() <= 4
    assert managed.icc[16:20] == b"RGB "


def test_notes_say_what_was_dropped(tmp_path):
    deep = random_picture(dtype=np.uint16, alpha=True)
    assert write_picture(tmp_path / "a.jpg", deep, fmt="jpg") == [
        "jpg has no room for 16 bits: rounded to 8",
        "jpg cannot carry alpha: composited on white",
    ]
    exact = random_picture(dtype=np.float32)
    notes = write_picture(tmp_path / "a.png", exact, fmt="png")
    assert notes == ["png has no room for floating point: rounded to 16 bits"]
    big = random_picture()
    big.exif = camera_exif() + bytes(70_000)
    notes = write_picture(tmp_path / "a.jpg", big, fmt="jpg")
    assert len(notes) == 1 and "EXIF of 70" in notes[0]
    assert read_picture(tmp_path / "a.jpg").exif is None
    gray = random_picture(channels=1)
    gray.icc = SRGB
    assert "ICC profile is not one" in write_picture(tmp_path / "a.png", gray, fmt="png")[0]
    assert (
        "quality 80 has no effect"
        in write_picture(tmp_path / "a.png", random_picture(), fmt="png", quality=80)[0]
    )
    assert (
        "the content is jpg"
        in read_bytes(tmp_path, saved(Image.new("L", (3, 3)), "JPEG"), "a.png").notes[0]
    )


def test_auto_format_keeps_the_source_or_says_why():
    picture = random_picture(alpha=True)
    for fmt in ("png", "webp", "tiff"):
        picture.source_format = fmt
        assert auto_format(picture) == (fmt, [])
    picture.source_format = "bmp"
    fmt, notes = auto_format(picture)
    assert fmt == "png" and notes == [
        "written as png, because bmp cannot carry alpha: composited on white"
    ]
    wide = Picture(np.zeros((1, 16384, 3), np.uint8), source_format="webp")
    assert auto_format(wide)[0] == "png"
