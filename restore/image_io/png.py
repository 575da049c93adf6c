"""PNG: chunks, 16 bits in every colour type, and the metadata that image libraries lose.

Pixels are decoded from a copy that holds nothing but the pixels, so that no library applies a
gamma, a colour key or a comment of any size on the way.

Source: PNG Specification, third edition (W3C, 2025).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import cv2
import numpy as np
from PIL import PngImagePlugin

from restore.image_io.picture import Array, Picture, icc_channels
from restore.image_io.png_check import checked_pixel_data

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
SAMPLES = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGB_ALPHA: 4}
_DEPTHS = {
    GRAY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GRAY_ALPHA: (8, 16),
    RGB_ALPHA: (8, 16),
}
# first column, first row, column step, row step of the seven passes of an interlaced file
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
_KEPT = frozenset({b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"pHYs", b"acTL", b"gAMA", b"sRGB", b"cICP"})
_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt"})
XMP_KEY = b"XML:com.adobe.xmp"
_EXIF_KEYS = (b"Raw profile type exif", b"Raw profile type APP1")
# no honest profile, EXIF block or XMP packet comes near; a chunk may inflate to gigabytes
MAX_METADATA = 2**24
_MOST_CHUNKS = 2**20  # pixel data comes in chunks of 8 KiB and more
_MOST_KEY = 79  # characters of a text's keyword
METRES_PER_INCH = 0.0254


@dataclass
class PngFile:
    """Header and small chunks of a file; `idat` holds the places of the pixel data."""

    width: int
    height: int
    bits: int
    colour: int
    interlaced: bool
    chunks: dict[bytes, bytes] = field(default_factory=dict)
    exif: bytes | None = None
    xmp: bytes | None = None
    idat: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def n_frames(self) -> int:
        """Frames of an animation; 1 for a plain picture."""
        control = self.chunks.get(b"acTL", b"")
        return struct.unpack_from(">I", control)[0] if len(control) >= 4 else 1

    @property
    def channels(self) -> int:
        """1 or 3, without alpha; a palette of grays counts as gray."""
        if self.colour == PALETTE:
            return 1 if self._gray_palette() else 3
        return 3 if self.colour in (RGB, RGB_ALPHA) else 1

    @property
    def has_alpha(self) -> bool:
        """Whether pixels carry alpha, or a colour or palette key makes some transparent."""
        if self.colour in (GRAY_ALPHA, RGB_ALPHA):
            return True
        key = self.chunks.get(b"tRNS")
        # a key of another length is damaged, and left alone
        return key is not None and (self.colour == PALETTE or len(key) == 2 * self.channels)

    def palette(self) -> Array:
        """[256, 3] uint8; entries the file does not define are black."""
        table = np.zeros((256, 3), np.uint8)
        data = np.frombuffer(self.chunks.get(b"PLTE", b""), np.uint8)
        data = data[: len(data) // 3 * 3][:768].reshape(-1, 3)
        table[: len(data)] = data
        return table

    def _gray_palette(self) -> bool:
        icc = self.icc()
        table = self.palette()
        same = bool((table == table[:, :1]).all())
        return same and (icc is None or icc_channels(icc) == 1)

    def icc(self) -> bytes | None:
        """The ICC profile, inflated; None if there is none that can be."""
        _, _, rest = self.chunks.get(b"iCCP", b"").partition(b"\0")
        return _inflate(rest[1:]) or None

    def dpi(self) -> tuple[float, float] | None:
        """Dots per inch, None if the file states none or only an aspect ratio."""
        data = self.chunks.get(b"pHYs", b"")
        if len(data) != 9:
            return None
        x, y, unit = struct.unpack(">IIB", data)
        in_metres = unit == 1 and x and y
        return (x * METRES_PER_INCH, y * METRES_PER_INCH) if in_metres else None


def scan(file: BinaryIO) -> PngFile:
    """Walk over the chunks without reading pixel data.

    Raises:
        ValueError: a chunk is cut short or damaged, or the header claims the impossible.
    """
    file.seek(len(SIGNATURE))
    png: PngFile | None = None
    texts: list[bytes] = []
    for kind, at, length in _walk(file):
        if png is None:
            if kind != b"IHDR" or length != 13:
                raise ValueError("its header chunk is missing")
            png = _header(_read_chunk(file, kind, at, length))
        elif kind == b"IDAT":
            png.idat.append((at, length))
        elif kind in _KEPT or kind in _TEXT:
            if length > MAX_METADATA:
                png.notes.append(f"{kind.decode()} chunk of {length} bytes left out")
                continue
            data = _read_chunk(file, kind, at, length)
            if kind in _TEXT:
                _take_text(png, kind, data, texts)
            elif kind == b"eXIf":
                png.exif = data
            else:
                png.chunks.setdefault(kind, data)
    if png is None or not png.idat:
        raise ValueError("it holds no pixel data")
    if texts:
        names = ", ".join(sorted({t.decode("latin-1") for t in texts})[:5])
        png.notes.append(f"png text is not carried over: {names}")
    if b"cICP" in png.chunks:
        png.notes.append("png cICP (HDR or wide colour) is not carried over")
    gamma = png.chunks.get(b"gAMA", b"")
    plain = b"sRGB" in png.chunks or b"iCCP" in png.chunks
    # 1 / 2.2, the gamma of every file that means sRGB, as the chunk stores it
    if len(gamma) == 4 and not plain and abs(struct.unpack(">I", gamma)[0] - 45455) > 500:
        png.notes.append("png gAMA other than 1/2.2 is not carried over")
    return png


def _walk(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and length of each chunk's data up to IEND; the whole chunk is there."""
    end = file.seek(0, io.SEEK_END)
    at = len(SIGNATURE)
    kind = b""
    for _ in range(_MOST_CHUNKS):
        if kind == b"IEND":
            return
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it is cut short")
        length, kind = struct.unpack(">I4s", head)
        if at + 12 + length > end:
            raise ValueError(f"it is cut short within its {_name(kind)} chunk")
        yield kind, at + 8, length
        at += 12 + length
    raise ValueError(f"it has more than {_MOST_CHUNKS:,} chunks")


def _name(kind: bytes) -> str:
    return kind.decode("latin-1") if kind.isalpha() else kind.hex(" ")


def _read_chunk(file: BinaryIO, kind: bytes, at: int, length: int) -> bytes:
    file.seek(at)
    data = file.read(length)
    crc = file.read(4)
    if zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big") != crc:
        raise ValueError(f"its {_name(kind)} chunk is damaged (checksum)")
    return data


def _header(data: bytes) -> PngFile:
    width, height, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", data)
    if not 0 < width < 2**31 or not 0 < height < 2**31:
        raise ValueError(f"its header claims {width} x {height} pixels")
    if bits not in _DEPTHS.get(colour, ()) or interlace > 1:
        raise ValueError(f"its header claims {bits} bits of colour type {colour}")
    return PngFile(width, height, bits, colour, interlace == 1)


def _inflate(data: bytes) -> bytes:
    """At most MAX_METADATA bytes; empty if damaged or larger."""
    inflater = zlib.decompressobj()
    try:
        out = inflater.decompress(data, MAX_METADATA)
    except zlib.error:
        return b""
    return out if inflater.eof else b""


def _take_text(png: PngFile, kind: bytes, data: bytes, texts: list[bytes]) -> None:
    key, _, rest = data.partition(b"\0")
    if kind == b"iTXt":
        # flag, method, language, translated keyword, text
        packed = rest[:1] == b"\1"
        body = rest[2:].split(b"\0", 2)[-1]
        text = _inflate(body) if packed else body
    elif kind == b"zTXt" and (key == XMP_KEY or key in _EXIF_KEYS):
        text = _inflate(rest[1:])
    else:
        text = rest
    if key == XMP_KEY:
        png.xmp = text or None
    elif key in _EXIF_KEYS:
        png.exif = png.exif or _raw_profile(text)
    else:
        texts.append(key[:_MOST_KEY])


def _raw_profile(text: bytes) -> bytes | None:
    """EXIF as ImageMagick once wrote it: a name, a length, then hexadecimal digits."""
    try:
        digits = b"".join(text.split()[2:])
        data = bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return None
    return data[6:] if data.startswith(b"Exif\0\0") else None


def decode(file: BinaryIO, png: PngFile) -> Picture:
    """The picture, not yet upright.

    Raises:
        ValueError: pixel data is damaged or incomplete.
    """
    parts = [_read_chunk(file, b"IDAT", at, length) for at, length in png.idat]
    pixels, alpha = colours_and_alpha(png, decode_samples(png, parts))
    icc, notes = profile_of(png)
    return Picture(
        np.ascontiguousarray(pixels),
        None if alpha is None else np.ascontiguousarray(alpha),
        icc=icc,
        exif=png.exif,
        dpi=png.dpi(),
        xmp=png.xmp,
        source_format="png",
        notes=tuple(notes),
    )


def profile_of(png: PngFile) -> tuple[bytes | None, list[str]]:
    """The ICC profile, and all there is to note of a file."""
    icc, notes = png.icc(), list(png.notes)
    if icc is None and b"iCCP" in png.chunks:
        notes.append("the ICC profile is damaged or too large and was left out")
    return icc, notes


def decode_samples(png: PngFile, parts: list[bytes]) -> Array:
    """[H, W, samples] of the data of all IDAT chunks; palette indices stay indices.

    Raises:
        ValueError: it is damaged or incomplete.
    """
    return _decode_16(png, parts) if png.bits == 16 else _decode_8(png, parts)


def colours_and_alpha(png: PngFile, samples: Array) -> tuple[Array, Array | None]:
    """[n, W, 1 or 3] and [n, W] or None of the samples [n, W, ...] of some rows."""
    pixels, alpha = samples[..., : _colours(png)], None
    key = png.chunks.get(b"tRNS")
    if png.colour in (GRAY_ALPHA, RGB_ALPHA):
        alpha = samples[..., -1]
    elif png.colour == PALETTE:
        if key is not None:
            table = np.full(256, 255, np.uint8)
            table[: len(key[:256])] = np.frombuffer(key[:256], np.uint8)
            alpha = table[samples[..., 0]]
        pixels = png.palette()[samples[..., 0]][..., : png.channels]
    elif key is not None and len(key) == 2 * _colours(png):
        # below 8 bits the samples were spread over 0..255, and so is the key
        spread = 255 // (2**png.bits - 1) if png.bits < 8 else 1
        colour = np.frombuffer(key, ">u2").astype(np.uint32) * spread
        opaque = (pixels != colour).any(axis=2)
        alpha = np.where(opaque, np.iinfo(pixels.dtype).max, 0).astype(pixels.dtype)
    return pixels, alpha


def _colours(png: PngFile) -> int:
    return 3 if png.colour in (RGB, RGB_ALPHA) else 1


def _bare(png: PngFile, parts: list[bytes]) -> bytes:
    """The same pixels as a file without any other chunk."""
    header = (png.width, png.height, png.bits, png.colour, 0, 0, int(png.interlaced))
    chunks = [SIGNATURE, chunk(b"IHDR", struct.pack(">IIBBBBB", *header))]
    if png.colour == PALETTE:
        chunks.append(chunk(b"PLTE", png.palette().tobytes()))
    return b"".join([*chunks, *(chunk(b"IDAT", part) for part in parts), chunk(b"IEND", b"")])


def _decode_8(png: PngFile, parts: list[bytes]) -> Array:
    """[H, W, samples] uint8; palette indices stay indices."""
    # not Image.open: that compares sizes with a limit of its own, a global
    with PngImagePlugin.PngImageFile(io.BytesIO(_bare(png, parts))) as image:
        samples = np.asarray(image)
    if samples.dtype == np.bool_:
        samples = samples.astype(np.uint8) * (1 if png.colour == PALETTE else 255)
    return samples.reshape(png.height, png.width, SAMPLES[png.colour])


def _decode_16(png: PngFile, parts: list[bytes]) -> Array:
    """[H, W, samples] uint16."""
    # OpenCV returns what it has of incomplete data without a word
    parts = checked_pixel_data(parts, _passes(png))
    decoded = cv2.imdecode(np.frombuffer(_bare(png, parts), np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise ValueError("its pixel data is damaged")
    samples = decoded.reshape(png.height, png.width, -1)
    order = {GRAY: [0], RGB: [2, 1, 0], GRAY_ALPHA: [0, 3], RGB_ALPHA: [2, 1, 0, 3]}
    return samples[..., order[png.colour]]


def _passes(png: PngFile) -> list[tuple[int, int]]:
    """Rows, and bytes of a filtered row with its filter byte, of each pass that has any."""
    bits = png.bits * SAMPLES[png.colour]
    passes = [(png.width, png.height)]
    if png.interlaced:
        passes = [
            (-(-(png.width - x) // dx), -(-(png.height - y) // dy)) for x, y, dx, dy in _ADAM7
        ]
    return [(h, 1 + (w * bits + 7) // 8) for w, h in passes if w > 0 and h > 0]


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk: length, type, data, checksum."""
    crc = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)
