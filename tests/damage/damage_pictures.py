"""Damage inside of picture formats, past the checks that any noise would stop at."""

from __future__ import annotations

import struct
import zlib
from random import Random

from damage_bytes import ANY, EDGES, flip_bits, set_bytes, set_number

from restore.image_io.png import SIGNATURE

Chunks = list[tuple[bytes, bytes]]


def damaged_part(rng: Random, data: bytes) -> bytes:
    """The same with one of the plain kinds of damage."""
    return rng.choice(ANY)(rng, data)


# PNG


def _png_chunks(data: bytes) -> Chunks:
    found, at = [], len(SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _png_file(chunks: Chunks) -> bytes:
    """With lengths and checksums that are right."""
    out = [SIGNATURE]
    for kind, data in chunks:
        crc = zlib.crc32(data, zlib.crc32(kind))
        out.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc))
    return b"".join(out)


def png_header(rng: Random, data: bytes) -> bytes:
    """Sizes, depth, colour type and interlacing at random, with the checksum they need."""
    chunks = _png_chunks(data)
    head = bytearray(chunks[0][1].ljust(13, b"\0"))
    for _ in range(rng.choice((1, 1, 2))):
        at, form = rng.choice(((0, ">I"), (4, ">I"), (8, "B"), (9, "B"), (10, "B"), (12, "B")))
        top = 2**32 if form == ">I" else 256
        value = rng.choice((*EDGES, 4, 16, 3, 6, 20000)) % top
        struct.pack_into(form, head, at, value)
    return _png_file([(b"IHDR", bytes(head)), *chunks[1:]])


def png_chunk(rng: Random, data: bytes) -> bytes:
    """One chunk's data damaged, with the right checksum."""
    chunks = _png_chunks(data)
    number = rng.randrange(len(chunks))
    kind, content = chunks[number]
    chunks[number] = (kind, damaged_part(rng, content))
    return _png_file(chunks)


def png_order(rng: Random, data: bytes) -> bytes:
    """Chunks missing, twice, elsewhere or under another name."""
    chunks = _png_chunks(data)
    number = rng.randrange(len(chunks))
    kind, content = chunks[number]
    change = rng.randrange(5)
    if change == 0:
        del chunks[number]
    elif change == 1:
        chunks[number:number] = [(kind, content)] * rng.choice((1, 2, 200))
    elif change == 2:
        rng.shuffle(chunks)
    elif change == 3:
        names = (b"IDAT", b"IEND", b"tRNS", b"PLTE", b"eXIf", b"iCCP", b"acTL", b"\x1b[2J", b"abcd")
        chunks[number] = (rng.choice(names), content)
    else:
        extra = rng.choice((b"tEXt", b"iTXt", b"zTXt", b"iCCP", b"eXIf", b"pHYs", b"tRNS", b"PLTE"))
        chunks.insert(min(1, len(chunks)), (extra, rng.randbytes(rng.choice((0, 1, 9, 300)))))
    return _png_file(chunks)


def png_pixels(rng: Random, data: bytes) -> bytes:
    """Rows that unpack well and hold other bytes than they should, or too few, or far too many."""
    chunks = _png_chunks(data)
    packed = b"".join(content for kind, content in chunks if kind == b"IDAT")
    try:
        rows = zlib.decompress(packed)
    except zlib.error:
        rows = b""
    rows = rng.choice(
        (
            lambda: damaged_part(rng, rows),
            lambda: rows[: len(rows) // 2],
            lambda: rows * 3,
            lambda: bytes(2**24),
            lambda: bytes(byte | 128 for byte in rows),  # filters that there are not
        )
    )()
    others = [part for part in chunks if part[0] not in (b"IDAT", b"IEND")]
    stream = zlib.compress(rows)
    if rng.random() < 0.3:
        stream = flip_bits(rng, stream)
    return _png_file([*others, (b"IDAT", stream), (b"IEND", b"")])


# JPEG


def _jpeg_segments(data: bytes) -> tuple[Chunks, bytes]:
    """Markers with their data, and all from the first scan on."""
    found, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at : at + 2]
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker == b"\xff\xda":
            break
        found.append((marker, data[at + 4 : at + 2 + length]))
        at += 2 + length
    return found, data[at:]


def _jpeg_file(segments: Chunks, rest: bytes) -> bytes:
    parts = [m + struct.pack(">H", min(len(d) + 2, 65535)) + d[:65533] for m, d in segments]
    return b"\xff\xd8" + b"".join(parts) + rest


def jpeg_segment(rng: Random, data: bytes) -> bytes:
    """A table, header or metadata segment damaged, with the right length."""
    segments, rest = _jpeg_segments(data)
    if not segments:
        return data
    number = rng.randrange(len(segments))
    marker, content = segments[number]
    segments[number] = (marker, damaged_part(rng, content))
    return _jpeg_file(segments, rest)


def jpeg_frame(rng: Random, data: bytes) -> bytes:
    """Size, components and sampling at random."""
    segments, rest = _jpeg_segments(data)
    for number, (marker, content) in enumerate(segments):
        if b"\xff\xc0" <= marker <= b"\xff\xcf" and marker not in (b"\xff\xc4", b"\xff\xc8"):
            out = bytearray(content.ljust(15, b"\0"))
            for _ in range(rng.choice((1, 2, 3))):
                at, size = rng.choice(((0, 1), (1, 2), (3, 2), (5, 1), (7, 1), (10, 1), (8, 1)))
                value = rng.choice((*EDGES, 0x11, 0x41, 0x14, 0xFF, 0x00)) % 256**size
                out[at : at + size] = value.to_bytes(size, "big")
            kinds = (marker, b"\xff\xc0", b"\xff\xc2", b"\xff\xc3", b"\xff\xc9")
            segments[number] = (rng.choice(kinds), bytes(out))
    return _jpeg_file(segments, rest)


def jpeg_order(rng: Random, data: bytes) -> bytes:
    """Segments missing, twice, elsewhere or of another marker."""
    segments, rest = _jpeg_segments(data)
    if not segments:
        return data
    number = rng.randrange(len(segments))
    change = rng.randrange(4)
    if change == 0:
        del segments[number]
    elif change == 1:
        segments[number:number] = [segments[number]] * rng.choice((1, 40))
    elif change == 2:
        rng.shuffle(segments)
    else:
        segments[number] = (bytes([0xFF, rng.randrange(0xC0, 0xFF)]), segments[number][1])
    return _jpeg_file(segments, rest)


def jpeg_scan(rng: Random, data: bytes) -> bytes:
    """The coded pixels: noise, markers in between, more scans than pictures have."""
    segments, rest = _jpeg_segments(data)
    marks = (b"\xff\xd9", b"\xff\xda", b"\xff\xd8", b"\xff\xd0", b"\xff\xff", b"\xff\xc0", b"\xff")
    at = rng.randrange(len(rest) + 1)
    rest = rng.choice(
        (
            lambda: damaged_part(rng, rest),
            lambda: rest[:at] + rng.choice(marks) + rest[at:],
            lambda: rest[:20] * rng.choice((5, 500)) + rest,
            lambda: rest[:14] + rng.randbytes(len(rest)),
        )
    )()
    return _jpeg_file(segments, rest)


# WebP


def _riff_chunks(data: bytes) -> Chunks:
    found, at = [], 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        found.append((kind, data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return found


def _riff_file(chunks: Chunks, claimed: int | None = None) -> bytes:
    parts = [k + struct.pack("<I", len(d)) + d + b"\0" * (len(d) % 2) for k, d in chunks]
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body) if claimed is None else claimed % 2**32) + body


def webp_chunk(rng: Random, data: bytes) -> bytes:
    """One chunk's data damaged, with the right length."""
    chunks = _riff_chunks(data)
    if not chunks:
        return data
    number = rng.randrange(len(chunks))
    chunks[number] = (chunks[number][0], damaged_part(rng, chunks[number][1]))
    return _riff_file(chunks)


def webp_sizes(rng: Random, data: bytes) -> bytes:
    """Lengths that do not fit, a canvas of another size, other flags."""
    chunks = _riff_chunks(data)
    for number, (kind, content) in enumerate(chunks):
        if kind in (b"VP8X", b"VP8 ", b"VP8L") and rng.random() < 0.7:
            chunks[number] = (kind, rng.choice((set_number, set_bytes))(rng, content[:10]))
            if kind != b"VP8X":
                chunks[number] = (kind, chunks[number][1] + content[10:])
    return _riff_file(chunks, rng.choice((None, None, *EDGES)))


def webp_order(rng: Random, data: bytes) -> bytes:
    chunks = _riff_chunks(data)
    change = rng.randrange(4)
    if change == 0 and chunks:
        del chunks[rng.randrange(len(chunks))]
    elif change == 1:
        rng.shuffle(chunks)
    elif change == 2 and chunks:
        kind = rng.choice(
            (b"ANMF", b"VP8 ", b"VP8L", b"ALPH", b"EXIF", b"ICCP", b"XMP ", b"\x1b[2J")
        )
        chunks[rng.randrange(len(chunks))] = (kind, chunks[rng.randrange(len(chunks))][1])
    else:
        chunks.insert(0, (b"VP8X", rng.randbytes(10)))
    return _riff_file(chunks)


# BMP


def bmp_header(rng: Random, data: bytes) -> bytes:
    """Offset, size, planes, depth, packing, colours."""
    out = bytearray(data.ljust(54, b"\0"))
    for _ in range(rng.choice((1, 2))):
        at, size = rng.choice(
            ((10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (46, 4))
        )
        value = rng.choice((*EDGES, 12, 40, 64, 108, 124, 4, 16, 24)) % 256**size
        out[at : at + size] = value.to_bytes(size, "little")
    return bytes(out)
