"""TIFF files written piece by piece: strips of rows here, tiles in `tiff_tiles`.

Shape letters: W columns, C samples of a pixel (1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha).
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO

import numpy as np

from restore.atomic import atomic_output, writing
from restore.image_io.exif import (
    LONG,
    LONG8,
    SHORT,
    Entry,
    encode_ifd,
    exif_directories,
    long,
    resolution_entries,
    short,
)
from restore.image_io.picture import DEPTHS, Array
from restore.image_io.sinks import NOTHING, Carried, Raster, RowSink
from restore.image_io.source import PathLike
from restore.image_io.tiff_packing import Compression, Packing

_STRIP_BYTES = 2**20
MAX_CLASSIC = 2**32 - 2**26  # below 4 GiB, with room for directories and metadata
_UNASSOCIATED = 2
_ICC, _XMP = 34675, 700


class TiffOutput:
    """A TIFF file that appears under its name when it is finished: bytes, then directories.

    Args of the constructor:
        path: where to write.
        big: BigTIFF, for more than 4 GiB.
    """

    def __init__(self, path: PathLike, big: bool) -> None:
        """Nothing is created before the block is entered."""
        self.path, self.big = path, big
        self._stack = contextlib.ExitStack()
        self._file: BinaryIO | None = None

    def __enter__(self) -> TiffOutput:
        """Create the file under a temporary name."""
        self._file = self._stack.enter_context(atomic_output(self.path))
        self.put(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if self.big else b"II*\0" + bytes(4))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Rename the file, or remove it if anything went wrong."""
        self._stack.__exit__(kind, error, trace)

    @property
    def _open(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("write within the writer's `with` block")
        return self._file

    def put(self, data: bytes) -> int:
        """Append bytes at an even place; where they begin."""
        file = self._open
        with writing(self.path):
            at = file.seek(0, os.SEEK_END)
            file.write(b"\0" * (at % 2) + data)
        return at + at % 2

    def get(self, at: int, n: int) -> bytes:
        """Bytes that were put."""
        file = self._open
        with writing(self.path):
            file.seek(at)
            return file.read(n)

    def finish(self, pages: Sequence[dict[int, Entry]], exif: bytes | None) -> None:
        """Write the pages' directories, one after another; EXIF and GPS belong to the first."""
        at = 4 if not self.big else 8  # of the number that says where the next directory stands
        first = dict(pages[0])
        if exif:
            described, subs = exif_directories(exif)
            for tag, ifd in subs.items():
                place = self.put(b"")
                place = self.put(encode_ifd(ifd, place, self.big))
                described[tag] = self._pointer(place)
            first = {**described, **first}
        for entries in (first, *pages[1:]):
            place = self.put(encode_ifd(entries, self.put(b""), self.big))
            with writing(self.path):
                self._open.seek(at)
                self._open.write(struct.pack("<Q" if self.big else "<I", place))
            at = place + (8 + 20 * len(entries) if self.big else 2 + 12 * len(entries))

    def _pointer(self, place: int) -> Entry:
        return Entry(LONG8, 1, struct.pack("<Q", place)) if self.big else long(place)

    def places(self, values: Sequence[int]) -> Entry:
        """A tag of offsets or of byte counts."""
        wide = np.asarray(values, "<u8" if self.big else "<u4")
        return Entry(LONG8 if self.big else LONG, len(values), wide.tobytes())


def metadata_entries(carried: Carried) -> dict[int, Entry]:
    """Tags of what a picture carries beside its samples and EXIF."""
    entries = resolution_entries(carried.dpi) if carried.dpi else {}
    if carried.icc:
        entries[_ICC] = Entry(7, len(carried.icc), carried.icc)
    if carried.xmp:
        entries[_XMP] = Entry(1, len(carried.xmp), carried.xmp)
    return entries


def sample_entries(height: int, width: int, packing: Packing) -> dict[int, Entry]:
    """Tags of a page's size and samples."""
    channels, dtype = packing.channels, packing.dtype
    bits = np.full(channels, DEPTHS[dtype], "<u2").tobytes()
    form = np.full(channels, 3 if dtype.kind == "f" else 1, "<u2").tobytes()
    entries = {
        256: long(width),
        257: long(height),
        258: Entry(SHORT, channels, bits),
        277: short(channels),
        284: short(1),
        339: Entry(SHORT, channels, form),
    }
    if channels in (2, 4):
        entries[338] = short(_UNASSOCIATED)
    return entries | packing.entries()


class TiffRowWriter(RowSink):
    """Writes a TIFF file band by band, in strips; memory is a band and a strip.

    A BigTIFF is written where the samples alone could pass 4 GiB.

    Args of the constructor, beside those of `Sink`:
        level: deflate's effort, 0 (none) to 9.
        compression: see `Packing`.

    Raises:
        OutputError: the file cannot be written, or fewer rows came than it has.
        ValueError: channels, dtype or the shape of a band does not fit.
    """

    def __init__(
        self,
        path: PathLike,
        raster: Raster,
        carried: Carried = NOTHING,
        *,
        level: int = 6,
        compression: Compression = "deflate",
    ) -> None:
        """Check the arguments; the file is created on entering the block."""
        super().__init__(path, raster, carried)
        if not 0 <= level <= 9:
            raise ValueError(f"level {level}; expected 0 to 9")
        self._packing = Packing(
            compression if level else "none", self.channels, self.dtype, level=level
        )
        row_bytes = self.width * self.channels * self.dtype.itemsize
        self._strip_rows = min(self.height, max(1, _STRIP_BYTES // row_bytes))
        if compression == "jpeg":  # whose blocks are of 8 rows
            self._strip_rows = -(-self._strip_rows // 8) * 8
        self._pending = np.empty((0, self.width, self.channels), self.dtype)
        self._offsets: list[int] = []
        self._counts: list[int] = []
        self._out = TiffOutput(path, self.height * row_bytes > MAX_CLASSIC)

    def _begin(self, stack: contextlib.ExitStack) -> None:
        stack.enter_context(self._out)
        # deflate leaves Python's lock, so strips are packed side by side
        workers = min(4, os.cpu_count() or 1)
        self._pool = stack.enter_context(ThreadPoolExecutor(workers))

    def _take(self, rows: Array) -> None:
        step, start = self._strip_rows, 0
        if len(self._pending):
            start = min(step - len(self._pending), len(rows))
            self._pending = np.concatenate([self._pending, rows[:start]])
            if len(self._pending) < step:
                return
            self._put_strips([self._pending])
        end = start + (len(rows) - start) // step * step
        self._put_strips([rows[y : y + step] for y in range(start, end, step)])
        self._pending = rows[end:].copy()

    def _end(self) -> None:
        if len(self._pending):
            self._put_strips([self._pending])
        page = {
            **metadata_entries(self.carried),
            **sample_entries(self.height, self.width, self._packing),
            273: self._out.places(self._offsets),
            278: long(self._strip_rows),
            279: self._out.places(self._counts),
        }
        self._out.finish([page], self.carried.exif)

    def _put_strips(self, strips: list[Array]) -> None:
        # a few at a time: what is packed and not yet written must not grow with the band
        for start in range(0, len(strips), 8):
            for data in self._pool.map(self._packing.packed, strips[start : start + 8]):
                self._offsets.append(self._out.put(data))
                self._counts.append(len(data))
