"""EXIF and XMP blocks: made to fit pixels that were turned, enlarged or moved to another format.

An EXIF block is a small TIFF file. `fit_exif` edits it in place, so that whatever it does not
understand (a camera's MakerNote holds offsets into the block) keeps its bytes and its position.

Source: TIFF 6.0, section 2; Exif 2.32 (CIPA DC-008), sections 4.5 and 4.6.
"""

from __future__ import annotations

import io
import math
import re
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, Literal

import numpy as np

ByteOrder = Literal["<", ">"]
WIDTH, HEIGHT, ORIENTATION, EXIF_IFD, GPS_IFD = 256, 257, 274, 34665, 34853
IMAGE_DESCRIPTION = 270
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, INTEROP_IFD = 282, 283, 296, 40965
_PIXEL_X, _PIXEL_Y = 40962, 40963
_THUMBNAIL_OFFSET, _THUMBNAIL_LENGTH = 513, 514

SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16
# TIFF type to (bytes of a value, bytes of a word within it)
_TYPES = {1: (1, 1), 2: (1, 1), 6: (1, 1), 7: (1, 1), 3: (2, 2), 8: (2, 2), 4: (4, 4)}
_TYPES |= {9: (4, 4), 11: (4, 4), 13: (4, 4), 5: (8, 4), 10: (8, 4), 12: (8, 8), 16: (8, 8)}
_TYPES |= {17: (8, 8), 18: (8, 8)}
_MAX_ENTRIES = 4096  # a directory with more is damaged
_MAX_VALUE_BYTES = 2**24
_MAX_IFD_BYTES = 2**26  # of all values: many entries may point to the same bytes

# IFD0 tags that describe the picture rather than how a TIFF file stores it
DESCRIPTIVE = frozenset(
    {269, 270, 271, 272, 274, 282, 283, 285, 296, 305, 306, 315, 316, 318, 319}
    | {18246, 18249, 33432, *range(40091, 40096), EXIF_IFD, GPS_IFD}
)


@dataclass(frozen=True)
class Entry:
    """One directory entry; data is little-endian whatever the file was."""

    kind: int
    count: int
    data: bytes
    at: int = 0  # where the entry itself begins in what it was read from

    def number(self) -> float | None:
        """The first value as a finite number, None for text, bytes and what is cut short."""
        form = {1: "<B", 3: "<H", 4: "<I", 13: "<I", 16: "<Q", 18: "<Q", 11: "<f", 12: "<d"}
        if self.kind in form and len(self.data) >= struct.calcsize(form[self.kind]):
            value = float(struct.unpack_from(form[self.kind], self.data)[0])
            return value if math.isfinite(value) else None
        if self.kind == RATIONAL and len(self.data) >= 8:
            above, below = struct.unpack_from("<II", self.data)
            return above / below if below else None
        return None

    def offset(self) -> int | None:
        """The place in the file that it points to, None where it is no pointer."""
        if self.kind not in (LONG, 13, LONG8, 18) or len(self.data) not in (4, 8):
            return None
        at = int.from_bytes(self.data, "little")
        return at if 0 < at < 2**62 else None


def read_ifd(
    file: BinaryIO, offset: int, order: ByteOrder, big: bool = False
) -> tuple[dict[int, Entry], int]:
    """The directory at `offset`, and the offset of the next one (0: none).

    Entries of unknown type, enormous ones, and those whose values lie outside the file are left
    out.

    Raises:
        ValueError: no directory stands there.
    """
    head, body, inline = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    file.seek(offset)
    raw = file.read(struct.calcsize(order + head))
    if len(raw) < struct.calcsize(order + head):
        raise ValueError(f"no directory at byte {offset}")
    (n,) = struct.unpack(order + head, raw)
    size = struct.calcsize(order + body) + inline
    table = file.read(n * size) if n <= _MAX_ENTRIES else b""
    if len(table) < n * size:
        raise ValueError(f"the directory at byte {offset} claims {n} entries")
    tail = file.read(inline)
    entries: dict[int, Entry] = {}
    room = _MAX_IFD_BYTES
    for i in range(n):
        tag, kind, count = struct.unpack_from(order + body, table, i * size)
        value = table[(i + 1) * size - inline : (i + 1) * size]
        each, word = _TYPES.get(kind, (0, 1))
        length = each * count
        if not 0 < length <= min(room, _MAX_VALUE_BYTES):
            continue
        room -= length
        if length > inline:
            file.seek(int.from_bytes(value, "little" if order == "<" else "big"))
            value = file.read(length)
        if len(value) < length:
            continue
        at = offset + struct.calcsize(order + head) + i * size
        data = _swapped(value[:length], word) if order == ">" else value[:length]
        entries[tag] = Entry(kind, count, data, at)
    following = int.from_bytes(tail, "little" if order == "<" else "big")
    return entries, following if len(tail) == inline else 0


def _swapped(data: bytes, word: int) -> bytes:
    return data if word == 1 else np.frombuffer(data, f"u{word}").byteswap().tobytes()


def encode_ifd(entries: dict[int, Entry], offset: int, big: bool = False) -> bytes:
    """A little-endian directory and its values, to stand at `offset`; no directory follows it."""
    head, body, inline = ("<Q", "<HHQ", 8) if big else ("<H", "<HHI", 4)
    size = struct.calcsize(body) + inline
    outside = offset + struct.calcsize(head) + len(entries) * size + inline
    table, values = bytearray(struct.pack(head, len(entries))), bytearray()
    for tag, entry in sorted(entries.items()):
        table += struct.pack(body, tag, entry.kind, entry.count)
        if len(entry.data) <= inline:
            table += entry.data.ljust(inline, b"\0")
            continue
        table += (outside + len(values)).to_bytes(inline, "little")
        values += entry.data + b"\0" * (len(entry.data) % 2)  # values begin at even bytes
    return bytes(table + bytes(inline) + values)


def short(value: int) -> Entry:
    """One 16-bit number."""
    return Entry(SHORT, 1, struct.pack("<H", value))


def long(value: int) -> Entry:
    """One 32-bit number."""
    return Entry(LONG, 1, struct.pack("<I", value))


def rational(value: float) -> Entry:
    """One non-negative number as the nearest fraction with a denominator up to 10,000."""
    fraction = Fraction(min(value, 2**32 - 1)).limit_denominator(10_000)
    if fraction.numerator >= 2**32:
        fraction = Fraction(round(value))
    return Entry(RATIONAL, 1, struct.pack("<II", fraction.numerator, fraction.denominator))


def parse_exif(exif: bytes) -> tuple[ByteOrder, dict[int, Entry], int]:
    """Byte order, IFD0, and the offset of IFD1 (the thumbnail's; 0: none) of an EXIF block.

    Raises:
        ValueError: the block does not begin as a TIFF file, or its IFD0 cannot be read.
    """
    orders: dict[bytes, ByteOrder] = {b"II*\0": "<", b"MM\0*": ">"}
    if exif[:4] not in orders or len(exif) < 8:
        raise ValueError(f"begins with {exif[:4]!r}")
    order = orders[exif[:4]]
    (offset,) = struct.unpack_from(order + "I", exif, 4)
    return order, *read_ifd(io.BytesIO(exif), offset, order)


def sub_ifd(exif: bytes, order: ByteOrder, ifd0: dict[int, Entry], tag: int) -> dict[int, Entry]:
    """The directory that IFD0's `tag` points to; empty if there is none that can be read."""
    try:
        offset = ifd0[tag].offset() if tag in ifd0 else None
        return read_ifd(io.BytesIO(exif), offset, order)[0] if offset else {}
    except ValueError:
        return {}


def fit_exif(exif: bytes, width: int, height: int) -> bytes:
    """The block with orientation 1, the sizes it states set to these, and no thumbnail.

    Raises:
        ValueError: it is no EXIF block.
    """
    order, ifd0, ifd1_offset = parse_exif(exif)
    block = bytearray(exif)
    _put_number(block, order, ifd0.get(ORIENTATION), 1)
    details = sub_ifd(exif, order, ifd0, EXIF_IFD)
    for ifd, tag, value in (
        (ifd0, WIDTH, width),
        (ifd0, HEIGHT, height),
        (details, _PIXEL_X, width),
        (details, _PIXEL_Y, height),
    ):
        _put_number(block, order, ifd.get(tag), value)
    if ifd1_offset:
        _drop_thumbnail(block, order, ifd1_offset)
    return bytes(block)


def _is_one_number(entry: Entry) -> bool:
    return entry.kind in (SHORT, LONG) and entry.count == 1


def _put_number(block: bytearray, order: ByteOrder, entry: Entry | None, value: int) -> None:
    """Overwrite a number of one SHORT or LONG, which both fit into the entry itself."""
    if entry is None or not _is_one_number(entry):
        return
    kind = LONG if value > 0xFFFF else entry.kind
    packed = struct.pack(order + ("H" if kind == SHORT else "I"), value).ljust(4, b"\0")
    struct.pack_into(order + "H", block, entry.at + 2, kind)
    block[entry.at + 8 : entry.at + 12] = packed


def _drop_thumbnail(block: bytearray, order: ByteOrder, ifd1_offset: int) -> None:
    """Unlink IFD1 and blank the old picture it shows; cut it off where it ends the block."""
    (ifd0_offset,) = struct.unpack_from(order + "I", block, 4)
    (n,) = struct.unpack_from(order + "H", block, ifd0_offset)
    link = ifd0_offset + 2 + 12 * n
    block[link : link + 4] = bytes(4)
    try:
        ifd1, _ = read_ifd(io.BytesIO(bytes(block)), ifd1_offset, order)
    except ValueError:
        return
    start = ifd1[_THUMBNAIL_OFFSET].offset() if _THUMBNAIL_OFFSET in ifd1 else None
    length = ifd1[_THUMBNAIL_LENGTH].number() if _THUMBNAIL_LENGTH in ifd1 else None
    # only what lies behind both directories can be a thumbnail; anything else is damage
    if not start or not length or start < max(link + 4, ifd1_offset):
        return
    end = min(start + int(length), len(block))
    if end >= len(block) - 1:
        del block[start:]
    else:
        block[start:end] = bytes(end - start)


def _ifd0(exif: bytes | None) -> dict[int, Entry]:
    try:
        return parse_exif(exif or b"")[1]
    except ValueError:
        return {}


def orientation_of(exif: bytes | None) -> int:
    """The orientation tag, 1..8; 1 where there is none or it makes no sense."""
    entry = _ifd0(exif).get(ORIENTATION)
    # of another form it could not be set to upright, and the result would be turned once more
    value = entry.number() if entry is not None and _is_one_number(entry) else None
    return int(value) if value is not None and value in range(1, 9) else 1


def resolution_of(ifd0: dict[int, Entry]) -> tuple[float, float] | None:
    """Dots per inch that a directory states; None if it states none, or a bare aspect ratio."""
    unit = ifd0[RESOLUTION_UNIT].number() if RESOLUTION_UNIT in ifd0 else 2.0
    x = ifd0[X_RESOLUTION].number() if X_RESOLUTION in ifd0 else None
    y = ifd0[Y_RESOLUTION].number() if Y_RESOLUTION in ifd0 else None
    if not x or not y or unit not in (2, 3):
        return None
    per_inch = 2.54 if unit == 3 else 1.0
    # beyond what TIFF itself can say there is only damage
    return (x * per_inch, y * per_inch) if min(x, y) > 0 and max(x, y) < 2**31 else None


def resolution_entries(dpi: tuple[float, float]) -> dict[int, Entry]:
    """The three tags that state dots per inch."""
    x, y = dpi
    return {X_RESOLUTION: rational(x), Y_RESOLUTION: rational(y), RESOLUTION_UNIT: short(2)}


def with_resolution(exif: bytes, dpi: tuple[float, float]) -> bytes:
    """The block with these dots per inch stated; IFD0 moves to its end, all else stays in place.

    Raises:
        ValueError: it is no EXIF block.
    """
    order, _, _ = parse_exif(exif)
    (at,) = struct.unpack_from(order + "I", exif, 4)
    (n,) = struct.unpack_from(order + "H", exif, at)
    stored = [exif[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(n)]
    raw = {struct.unpack_from(order + "H", entry)[0]: entry for entry in stored}
    block = bytearray(exif + b"\0" * (len(exif) % 2))
    new = resolution_entries(dpi)
    values = len(block) + 2 + 12 * len(raw.keys() | new.keys()) + 4
    tail = bytearray()
    for tag, entry in new.items():
        if entry.kind == RATIONAL:
            field = struct.pack(order + "I", values + len(tail))
            tail += struct.pack(order + "II", *struct.unpack("<II", entry.data))
        else:
            field = struct.pack(order + "HH", int(entry.number() or 0), 0)
        raw[tag] = struct.pack(order + "HHI", tag, entry.kind, entry.count) + field
    block += struct.pack(order + "H", len(raw)) + b"".join(raw[tag] for tag in sorted(raw))
    block += exif[at + 2 + 12 * n : at + 6 + 12 * n] + tail
    struct.pack_into(order + "I", block, 4, values - 4 - 2 - 12 * len(raw))
    return bytes(block)


def exif_directories(exif: bytes) -> tuple[dict[int, Entry], dict[int, dict[int, Entry]]]:
    """Descriptive IFD0 entries, and the EXIF and GPS directories by the tag that points to them.

    Raises:
        ValueError: it is no EXIF block.
    """
    order, ifd0, _ = parse_exif(exif)
    subs = {tag: sub_ifd(exif, order, ifd0, tag) for tag in (EXIF_IFD, GPS_IFD)}
    return _described(ifd0, subs)


def states_layout(description: bytes) -> bool:
    """Whether an image description is a program's record of sizes and pages, not a person's words.

    tifffile writes JSON with a shape, ImageJ lines, OME-TIFF an XML document.
    """
    start = description[:1024].lstrip()
    return start.startswith((b'{"shape"', b"ImageJ=")) or b"<OME" in start


def _described(
    ifd0: dict[int, Entry], subs: dict[int, dict[int, Entry]]
) -> tuple[dict[int, Entry], dict[int, dict[int, Entry]]]:
    # the interoperability directory is not moved, so its pointer must not stay
    kept = {t: {k: v for k, v in ifd.items() if k != INTEROP_IFD} for t, ifd in subs.items()}
    pointers = {EXIF_IFD, GPS_IFD}
    top = {t: e for t, e in ifd0.items() if t in DESCRIPTIVE and t not in pointers}
    if IMAGE_DESCRIPTION in top and states_layout(top[IMAGE_DESCRIPTION].data):
        del top[IMAGE_DESCRIPTION]
    return top, {t: ifd for t, ifd in kept.items() if ifd}


def build_exif(ifd0: dict[int, Entry], subs: dict[int, dict[int, Entry]]) -> bytes | None:
    """An EXIF block of the descriptive entries of a TIFF file's directories; None if empty."""
    top, subs = _described(ifd0, subs)
    if not top and not subs:
        return None
    block = bytearray(b"II*\0" + struct.pack("<I", 8))
    # pointers count towards the directory's size, so they are in it before the values are known
    top = {**top, **{tag: long(0) for tag in subs}}
    at = 8 + len(encode_ifd(top, 8))
    tail = bytearray()
    for tag, ifd in subs.items():
        top[tag] = long(at + len(tail))
        tail += encode_ifd(ifd, at + len(tail))
    return bytes(block + encode_ifd(top, 8) + tail)


_XMP_NUMBERS = rb"((?:tiff:%s|exif:%s)(?:\s*=\s*[\"']|\s*>))\s*\d+"


def fit_xmp(xmp: bytes, width: int, height: int, exif: bytes | None) -> bytes:
    """The packet with its stated sizes set to these, and its orientation to 1 if EXIF states any.

    Where EXIF states none, the packet's own was not applied to the pixels, and so it stays.
    """
    changes = [(b"ImageWidth", b"PixelXDimension", width)]
    changes.append((b"ImageLength", b"PixelYDimension", height))
    stated = _ifd0(exif).get(ORIENTATION)
    if stated is not None and _is_one_number(stated):
        changes.append((b"Orientation", b"Orientation", 1))
    for tiff, exif, value in changes:
        pattern = _XMP_NUMBERS % (tiff, exif)
        xmp = re.sub(pattern, rb"\g<1>%d" % value, xmp)
    return xmp
