"""Writing PNG: every colour type at 8 and 16 bits, filtered and deflated in bands side by side.

Source: PNG Specification, third edition (W3C, 2025); RFC 1950 for the frame around deflate.

Shape letters: W columns, C samples of a pixel.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from restore.atomic import atomic_output, writing
from restore.image_io.picture import Array, Picture, to_depth
from restore.image_io.png import (
    GRAY,
    GRAY_ALPHA,
    METRES_PER_INCH,
    RGB,
    RGB_ALPHA,
    SIGNATURE,
    XMP_KEY,
    chunk,
)
from restore.image_io.sinks import Carried, Raster, RowSink

_BAND_BYTES = 2**20
_ZLIB_HEADER = b"\x78\x9c"  # deflate, window of 32 KiB, default effort


def encode(write: Callable[[bytes], object], picture: Picture) -> None:
    """Write an 8 or 16 bit picture as a PNG file, piece by piece."""
    height, width, channels = picture.pixels.shape
    raster = Raster(height, width, channels + (picture.alpha is not None), picture.pixels.dtype)
    carried = Carried(picture.icc, picture.exif, picture.xmp, picture.dpi)
    stream = PngStream(write, raster, carried)
    step = 8 * stream.band_rows
    for y in range(0, height, step):
        rows = picture.pixels[y : y + step]
        if picture.alpha is not None:
            rows = np.concatenate([rows, picture.alpha[y : y + step, :, None]], axis=2)
        stream.write(rows)
    stream.end()


class PngStream:
    """The bytes of a PNG file, as rows come.

    Args:
        write: takes the bytes.
        raster: the samples, uint8 or uint16.
        carried: what goes with the samples.
    """

    def __init__(self, write: Callable[[bytes], object], raster: Raster, carried: Carried) -> None:
        self._write = write
        self._height, width = raster.height, raster.width
        itemsize = raster.dtype.itemsize
        self._step = raster.channels * itemsize  # bytes of a pixel
        # in bands: the filters' intermediates take many times the memory of what they filter
        self.band_rows = max(1, _BAND_BYTES // (width * (self._step + itemsize)))
        self._above = np.zeros(width * self._step, np.uint8)
        self._taken = 0
        self._pending, self._checksum = _ZLIB_HEADER, 1
        colour = {1: GRAY, 2: GRAY_ALPHA, 3: RGB, 4: RGB_ALPHA}[raster.channels]
        head = struct.pack(">IIBBBBB", width, raster.height, 8 * itemsize, colour, 0, 0, 0)
        write(SIGNATURE)
        write(chunk(b"IHDR", head))
        for kind, data in _metadata(carried):
            write(chunk(kind, data))

    def write(self, rows: Array) -> None:
        """Append [n, W, C] rows."""
        self._taken += len(rows)
        step = self.band_rows
        bands = [rows[y : y + step] for y in range(0, len(rows), step)]
        above = [self._above, *(_raw_rows(band[-1:])[0] for band in bands)]
        self._above = above.pop()
        last = [False] * (len(bands) - 1) + [self._taken == self._height]
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            # a few at a time: what is packed and not yet written must not grow with the picture
            for at in range(0, len(bands), 8):
                few = slice(at, at + 8)
                for filtered, packed in pool.map(self._packed, bands[few], above[few], last[few]):
                    self._checksum = zlib.adler32(filtered, self._checksum)
                    self._write(chunk(b"IDAT", self._pending + packed))
                    self._pending = b""

    def end(self) -> None:
        """Write what stands behind the rows."""
        self._write(chunk(b"IDAT", self._checksum.to_bytes(4, "big")))
        self._write(chunk(b"IEND", b""))

    def _packed(self, band: Array, above: Array, is_last: bool) -> tuple[bytes, bytes]:
        """Rows, filtered; and deflated so that the next band's data may follow."""
        filtered = _filtered(_raw_rows(band), above, self._step)
        # negative: without the frame, which all bands share. Effort 5 took 0.6 of the time of 6 on
        # a photograph, for 2% more bytes; Z_FILTERED was larger and slower than the default
        deflater = zlib.compressobj(5, zlib.DEFLATED, -15, 9)
        packed = deflater.compress(filtered)
        return filtered, packed + deflater.flush(zlib.Z_FINISH if is_last else zlib.Z_SYNC_FLUSH)


class PngRowWriter(RowSink):
    """Writes a PNG file band by band; memory is a band. Floats are rounded to 16 bits.

    Raises:
        OutputError: the file cannot be written, or fewer rows came than it has.
        ValueError: channels, dtype or the shape of a band does not fit.
    """

    def _begin(self, stack: contextlib.ExitStack) -> None:
        file = stack.enter_context(atomic_output(self.path))
        depth = self.dtype if self.dtype.kind == "u" else np.dtype(np.uint16)
        raster = Raster(self.height, self.width, self.channels, depth)
        with writing(self.path):
            self._stream = PngStream(file.write, raster, self.carried)

    def _take(self, rows: Array) -> None:
        with writing(self.path):
            self._stream.write(rows if rows.dtype.kind == "u" else to_depth(rows, 16))

    def _end(self) -> None:
        with writing(self.path):
            self._stream.end()


def _raw_rows(rows: Array) -> Array:
    """[n, W, C] as the file orders them: [n, bytes] uint8, high byte first."""
    big_endian = np.ascontiguousarray(rows.astype(rows.dtype.newbyteorder(">"), copy=False))
    return big_endian.view(np.uint8).reshape(len(rows), -1)


def _metadata(carried: Carried) -> Iterator[tuple[bytes, bytes]]:
    if carried.icc:
        yield b"iCCP", b"ICC profile\0\0" + zlib.compress(carried.icc)
    if carried.dpi:
        x, y = (round(value / METRES_PER_INCH) for value in carried.dpi)
        if 0 < x < 2**31 and 0 < y < 2**31:
            yield b"pHYs", struct.pack(">IIB", x, y, 1)
    if carried.exif:
        yield b"eXIf", carried.exif
    if carried.xmp:
        yield b"iTXt", XMP_KEY + b"\0\0\0\0\0" + carried.xmp


def _filtered(raw: Array, above: Array, step: int) -> bytes:
    """Each of [rows, bytes] filtered by what leaves the smallest sum of absolute differences.

    Args:
        raw: [rows, bytes] uint8.
        above: [bytes], the row before the first.
        step: bytes of a pixel.

    Source: PNG specification, 9.2 (filter types) and 12.7 (the heuristic).
    """
    up = np.concatenate([above[None], raw[:-1]])
    left, corner = np.zeros_like(raw), np.zeros_like(raw)
    left[:, step:] = raw[:, :-step]
    corner[:, step:] = up[:, :-step]
    a, b, c = left.astype(np.int16), up.astype(np.int16), corner.astype(np.int16)
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    paeth = np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))
    average = ((a + b) // 2).astype(np.uint8)
    candidates = [raw, raw - left, raw - up, raw - average, raw - paeth]
    costs = [
        np.abs(f.view(np.int8).astype(np.int16)).sum(axis=1, dtype=np.int64) for f in candidates
    ]
    best = np.argmin(costs, axis=0)  # [rows]
    out = np.empty((len(raw), raw.shape[1] + 1), np.uint8)
    out[:, 0] = best
    for kind, candidate in enumerate(candidates):
        chosen = best == kind
        out[chosen, 1:] = candidate[chosen]
    return out.tobytes()
