"""PNG pictures larger than memory, read in bands of rows.

A band's filtered rows become a small file of their own, below the row before them, so that the
library that decodes whole pictures undoes the filters here too.

Source: PNG Specification, third edition (W3C, 2025).

Shape letters: W columns, C samples of a pixel (1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha).
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from restore.errors import ImageError
from restore.image_io import png
from restore.image_io.exif import orientation_of
from restore.image_io.picture import Array
from restore.image_io.row_files import NotInPartsError, SequentialRows
from restore.image_io.source import PathLike, decoding, opened_file

_PIECE = 2**20  # bytes read from the file at once
_BAND_BYTES = 2**24  # of filtered rows decoded at once
_LAST_FILTER = 4  # Paeth
# bytes of a pixel to the kind of picture whose pixels have as many: filters know nothing else
_LIKE = {
    1: (8, png.GRAY),
    2: (8, png.GRAY_ALPHA),
    3: (8, png.RGB),
    4: (8, png.RGB_ALPHA),
    6: (16, png.RGB),
    8: (16, png.RGB_ALPHA),
}


class PngRows(SequentialRows):
    """Rows of a PNG picture; see `RowFile`. A context manager.

    Raises:
        ImageError: the file cannot be read in parts, or at all; the message says why.
    """

    def __init__(self, path: PathLike) -> None:
        """Open the file and read its small chunks, no pixels."""
        super().__init__()
        self.path = path
        with contextlib.ExitStack() as opening:
            file, fmt = opening.enter_context(opened_file(path))
            if fmt != "png":
                raise ImageError(f"{path}: is {fmt}, not png")
            with decoding(path):
                header = png.scan(file)
            self._refuse(header)
            self._stack = opening.pop_all()
        self._file: BinaryIO = file
        self._png = header
        self.height, self.width = header.height, header.width
        self.has_alpha = header.has_alpha
        self.channels = header.channels + header.has_alpha
        self.dtype = np.dtype(np.uint16 if header.bits == 16 else np.uint8)
        self.icc, self.notes = png.profile_of(header)
        self.exif, self.xmp, self.dpi = header.exif, header.xmp, header.dpi()
        self._mirrored = orientation_of(header.exif) == 2
        samples = png.SAMPLES[header.colour]
        self._row_bytes = (header.width * samples * header.bits + 7) // 8
        self._step = max(1, samples * header.bits // 8)  # bytes of a pixel, to filters

    def _refuse(self, header: png.PngFile) -> None:
        orientation = orientation_of(header.exif)
        why = None
        if header.interlaced:
            why = "is interlaced, so every part of it needs the whole file"
        elif header.n_frames > 1:
            why = f"holds {header.n_frames} frames"
        elif orientation > 2:
            why = f"has orientation {orientation}, which puts its last row or column first"
        if why:
            raise NotInPartsError(f"{self.path}: {why}; it cannot be read in parts")

    def __enter__(self) -> PngRows:
        """The reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; `read` works no more."""
        self._stack.close()

    def _begin(self) -> None:
        self._inflated = self._inflate()
        self._spare = bytearray()
        self._decoded = 0  # rows
        self._above = np.zeros(self._row_bytes, np.uint8)

    def _decode(self, n: int) -> Array:
        most = max(1, _BAND_BYTES // self._row_bytes)
        with decoding(self.path):
            bands = [self._band(min(most, n - done)) for done in range(0, n, most)]
        return bands[0] if len(bands) == 1 else np.concatenate(bands)

    def _band(self, n: int) -> Array:
        """The next rows [n, W, C]."""
        raw = self._unfiltered(self._filtered(n))
        samples = self._samples(raw)
        pixels, alpha = png.colours_and_alpha(self._png, samples)
        if self.has_alpha:
            if alpha is None:  # a key that fits no colour
                alpha = np.full(pixels.shape[:2], np.iinfo(pixels.dtype).max, pixels.dtype)
            pixels = np.concatenate([pixels, alpha[..., None]], axis=2)
        return np.ascontiguousarray(pixels[:, ::-1] if self._mirrored else pixels)

    def _filtered(self, n: int) -> Array:
        """[n, 1 + row bytes] uint8: a filter's number, and what it left of a row."""
        wanted = n * (1 + self._row_bytes)
        while len(self._spare) < wanted:
            piece = next(self._inflated, b"")
            if not piece:
                raise ValueError(f"its pixel data ends {wanted - len(self._spare)} bytes too early")
            self._spare += piece
        rows = np.frombuffer(bytes(self._spare[:wanted]), np.uint8).reshape(n, -1)
        del self._spare[:wanted]
        self._decoded += n
        if self._decoded == self.height:
            for _ in self._inflated:  # to the last checksum
                pass
        return rows

    def _unfiltered(self, filtered: Array) -> Array:
        """[n, row bytes] uint8, as they were before the filters."""
        if int(filtered[:, 0].max()) > _LAST_FILTER:
            raise ValueError("a row names a filter that there is not")
        if not filtered[:, 0].any():
            raw = filtered[:, 1:]
        else:
            bits, colour = _LIKE[self._step]
            width, rest = divmod(self._row_bytes, self._step)
            assert rest == 0
            above = np.concatenate([np.zeros(1, np.uint8), self._above])
            data = zlib.compress(np.concatenate([above[None], filtered]).tobytes(), 0)
            small = png.PngFile(width, len(filtered) + 1, bits, colour, interlaced=False)
            decoded = png.decode_samples(small, [data])[1:]
            if bits == 16:
                decoded = np.ascontiguousarray(decoded.astype(">u2")).view(np.uint8)
            raw = decoded.reshape(len(filtered), -1)
        self._above = raw[-1].copy()
        return raw

    def _samples(self, raw: Array) -> Array:
        """[n, W, samples], of fewer than 8 bits spread over 0..255, palette indices as they are."""
        header = self._png
        if header.bits == 16:
            samples: Array = np.ascontiguousarray(raw).view(">u2").astype(np.uint16)
        elif header.bits == 8:
            samples = raw
        else:
            bits = np.unpackbits(np.ascontiguousarray(raw), axis=1)
            bits = bits[:, : header.width * header.bits].reshape(len(raw), -1, header.bits)
            samples = bits @ (1 << np.arange(header.bits - 1, -1, -1)).astype(np.uint8)
            if header.colour != png.PALETTE:
                samples = samples * np.uint8(255 // (2**header.bits - 1))
        return samples.reshape(len(raw), header.width, -1)

    def _inflate(self) -> Iterator[bytes]:
        """The filtered rows' bytes, piece by piece."""
        inflater = zlib.decompressobj()
        for packed in self._pieces():
            while packed and not inflater.eof:
                if data := inflater.decompress(packed, _PIECE):
                    yield data
                packed = inflater.unconsumed_tail
        if rest := inflater.flush():
            yield rest

    def _pieces(self) -> Iterator[bytes]:
        """The data of all IDAT chunks, each checked at its end."""
        for at, length in self._png.idat:
            checksum = zlib.crc32(b"IDAT")
            for start in range(0, length, _PIECE):
                self._file.seek(at + start)
                piece = self._file.read(min(_PIECE, length - start))
                checksum = zlib.crc32(piece, checksum)
                yield piece
            self._file.seek(at + length)
            if self._file.read(4) != checksum.to_bytes(4, "big"):
                raise ValueError("its IDAT chunk is damaged (checksum)")
