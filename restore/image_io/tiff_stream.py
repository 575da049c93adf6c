"""TIFF pictures larger than memory: read and write them in bands of rows.

Shape letters: W columns, C samples of a pixel (1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha).
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO

import numpy as np

from restore.atomic import atomic_output, writing
from restore.errors import ImageError, OutputError
from restore.image_io.colour import cmyk_converter
from restore.image_io.exif import (
    LONG,
    LONG8,
    SHORT,
    Entry,
    build_exif,
    encode_ifd,
    exif_directories,
    long,
    orientation_of,
    resolution_entries,
    short,
)
from restore.image_io.picture import (
    DEPTHS,
    Array,
    check_depth,
    icc_channels,
    to_depth,
    unpremultiply,
)
from restore.image_io.source import PathLike, decoding, opened_file
from restore.image_io.tiff import MINISWHITE, PALETTE, RGB, SEPARATED, TiffPage

_STRIP_BYTES = 2**20
_MAX_CLASSIC = 2**32 - 2**26  # below 4 GiB, with room for directories and metadata
_ASSOCIATED, _UNASSOCIATED = 1, 2


class TiffRows:
    """Rows of a TIFF page as restoration wants them: gray or RGB, alpha last, full range.

    A context manager. Palettes, CMYK, inverted gray, associated alpha, separate planes and odd
    depths are converted as they are read, each with a note.

    Attributes:
        height, width: pixels, upright.
        channels: C of what `read` returns, alpha counted.
        dtype: uint8, uint16 or float32.
        has_alpha: whether the last channel is alpha (not premultiplied).
        icc, exif, xmp, dpi: metadata as in `Picture`; exif may still hold an orientation.
        notes: what was converted or left out.

    Raises:
        ImageError: the file cannot be read in parts, or at all; the message says why.
    """

    def __init__(self, path: PathLike) -> None:
        """Open the file and read its directories, no pixels."""
        self.path = path
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as opening:
            file, fmt = opening.enter_context(opened_file(path))
            if fmt != "tiff":
                raise ImageError(f"{path}: is {fmt}, not tiff; only tiff is read in parts")
            opening.enter_context(decoding(path))
            page = TiffPage(file)
            if page.n_frames > 1:
                raise ImageError(
                    f"{path}: holds {page.n_frames} pages; split it into single pictures first"
                )
            orientation = orientation_of(build_exif(page.ifd0, page.sub_ifds))
            if orientation > 4:
                raise ImageError(
                    f"{path}: orientation {orientation} swaps rows and columns, which needs the "
                    "whole picture in memory; turn it with another program first"
                )
            self._setup(path, page, orientation)
            self._stack = opening.pop_all()

    @classmethod
    def of_page(cls, path: PathLike, page: TiffPage) -> TiffRows:
        """Rows of a page that is open already, as stored: its orientation is not applied."""
        rows = cls.__new__(cls)
        rows.path, rows._stack = path, contextlib.ExitStack()
        rows._setup(path, page, 1)
        return rows

    def _setup(self, path: PathLike, page: TiffPage, orientation: int) -> None:
        refusal = page.refusal()
        if refusal:
            raise ImageError(f"{path}: {refusal}; save it as gray or RGB, with deflate or LZW")
        page.check_segments()
        self._page, self._orientation = page, orientation
        self.height, self.width = page.height, page.width
        self.icc, self.xmp, self.dpi = page.icc, page.xmp, page.dpi
        self.exif = build_exif(page.ifd0, page.sub_ifds)
        self.notes: list[str] = []
        bits, is_float = page.bits[0], page.form == 3
        self.dtype = np.dtype(np.float32 if is_float else np.uint8 if bits <= 8 else np.uint16)
        if bits not in (1, 2, 4, 8, 16) and (bits != 32 or not is_float):
            kind = "float" if is_float else "integer"
            self.notes.append(f"{bits} bit {kind} samples became {self.dtype}")
        self._colours = 1 if page.colours == 1 else 3
        if page.photometric == SEPARATED:
            self._convert, self.icc, note = cmyk_converter(page.icc)
            self.dtype = np.dtype(np.uint8)
            self.notes.append(note + (", at 8 bits" if bits > 8 else ""))
        elif page.photometric == PALETTE:
            self._set_palette()
        self._set_alpha()
        self.channels = self._colours + self.has_alpha

    def _set_palette(self) -> None:
        table = self._page.page.colormap
        if table is None or self._page.bits[0] > 16 or table.shape[0] != 3:
            raise ValueError("its palette is missing")
        # [3, entries] of 16 bits, which most programs fill with 8-bit colours times 257 or 256
        colours = np.asarray(table, np.uint16).T
        for step in (257, 256):
            if not (colours % step).any():
                colours = (colours // step).astype(np.uint8)
                break
        self._colours = 1 if (colours == colours[:, :1]).all() else 3
        if self.icc and icc_channels(self.icc) == 3:
            self._colours = 3
        self._palette = np.ascontiguousarray(colours[:, : self._colours])
        self.dtype = self._palette.dtype

    def _set_alpha(self) -> None:
        page = self._page
        extras = page.extras or (0,) * (page.samples - page.colours)
        known = [i for i, e in enumerate(extras) if e in (_ASSOCIATED, _UNASSOCIATED)]
        self._alpha_at = page.colours + (known[0] if known else 0)
        self.has_alpha = bool(extras) and page.photometric != PALETTE
        self._associated = bool(known) and extras[known[0]] == _ASSOCIATED
        if self.has_alpha and not known:
            self.notes.append("the extra channel is of no stated kind: taken as alpha")
        if self._associated:
            self.notes.append("associated alpha was divided out of the colours")
        dropped = len(extras) - self.has_alpha
        if dropped:
            self.notes.append(f"{dropped} further channels are not carried over")

    def __enter__(self) -> TiffRows:
        """The reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; `read` works no more."""
        self._stack.close()

    def read(self, y0: int, y1: int) -> Array:
        """[y1 - y0, W, C] of these rows, decoding only the strips or tiles they lie in.

        Bands that overlap the one read just before do not decode the shared segments again.

        Raises:
            ValueError: not 0 <= y0 < y1 <= height.
            ImageError: the rows are damaged, or hold NaN or infinity.
        """
        if not 0 <= y0 < y1 <= self.height:
            raise ValueError(f"rows {y0} to {y1}; the picture has rows 0 to {self.height}")
        if self._orientation in (3, 4):
            y0, y1 = self.height - y1, self.height - y0
        with decoding(self.path):
            rows = self._converted(self._page.rows(y0, y1))
        if rows.dtype == np.float32 and not np.isfinite(rows).all():
            raise ImageError(
                f"{self.path}: rows {y0} to {y1} hold NaN or infinity; replace those samples first"
            )
        if self._orientation in (3, 4):
            rows = rows[::-1]
        if self._orientation in (2, 3):
            rows = rows[:, ::-1]
        return np.ascontiguousarray(rows)

    def _converted(self, stored: Array) -> Array:
        """Stored samples [n, W, S] as [n, W, C]."""
        page = self._page
        colours = stored[..., : page.colours]
        if page.photometric == PALETTE:
            if int(colours.max()) >= len(self._palette):
                raise ValueError("a pixel's colour is beyond the palette")
            return self._palette[colours[..., 0]]
        if page.photometric == MINISWHITE:
            top = 1 if colours.dtype == np.float32 else np.iinfo(colours.dtype).max
            colours = (top - colours).astype(colours.dtype)
        alpha = stored[..., self._alpha_at : self._alpha_at + 1] if self.has_alpha else None
        if page.photometric == SEPARATED:
            # ink of associated alpha is divided before it becomes light
            if alpha is not None and self._associated:
                colours = unpremultiply(colours, alpha[..., 0])
            colours = self._convert(np.ascontiguousarray(to_depth(colours, 8)))
            alpha = None if alpha is None else to_depth(alpha, 8)
        elif alpha is not None and self._associated:
            colours = unpremultiply(colours, alpha[..., 0])
        return colours if alpha is None else np.concatenate([colours, alpha], axis=2)


class TiffRowWriter:
    """Writes a TIFF file band by band, in deflated strips; memory is a band and a strip.

    A context manager: the file appears under its name when the block ends well, and not at all
    otherwise. A BigTIFF is written where the samples alone could pass 4 GiB.

    Args of the constructor:
        path: where to write.
        height, width: pixels of the whole picture.
        channels: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha (not premultiplied).
        dtype: uint8, uint16 or float32.
        icc, exif, xmp, dpi: as in `Picture`.
        level: deflate's effort, 0 (none) to 9.

    Raises:
        OutputError: the file cannot be written, or fewer rows came than it has.
        ValueError: channels, dtype or the shape of a band does not fit.
    """

    def __init__(
        self,
        path: PathLike,
        height: int,
        width: int,
        channels: int,
        dtype: np.typing.DTypeLike,
        *,
        icc: bytes | None = None,
        exif: bytes | None = None,
        xmp: bytes | None = None,
        dpi: tuple[float, float] | None = None,
        level: int = 6,
    ) -> None:
        """Check the arguments; the file is created on entering the block."""
        self.dtype = np.dtype(dtype)
        check_depth(self.dtype)
        if channels not in (1, 2, 3, 4) or min(height, width) < 1 or not 0 <= level <= 9:
            raise ValueError(
                f"height {height}, width {width}, channels {channels}, level {level}; expected "
                "at least one pixel, 1 to 4 channels, level 0 to 9"
            )
        self.path, self.height, self.width, self.channels = path, height, width, channels
        self._metadata = (icc, exif, xmp, dpi)
        self._level = level
        row_bytes = width * channels * self.dtype.itemsize
        self.big = height * row_bytes > _MAX_CLASSIC
        self._strip_rows = min(height, max(1, _STRIP_BYTES // row_bytes))
        self._pending = np.empty((0, width, channels), self.dtype)
        self._offsets: list[int] = []
        self._counts: list[int] = []
        self._written = 0
        self._stack = contextlib.ExitStack()
        self._file: BinaryIO | None = None

    def __enter__(self) -> TiffRowWriter:
        """Create the file under a temporary name."""
        self._file = self._stack.enter_context(atomic_output(self.path))
        # deflate leaves Python's lock, so strips are packed side by side
        workers = min(4, os.cpu_count() or 1)
        self._pool = self._stack.enter_context(ThreadPoolExecutor(workers))
        self._put(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if self.big else b"II*\0" + bytes(4))
        return self

    def write(self, rows: Array) -> None:
        """Append [n, W, C] rows of the writer's dtype, below those written before."""
        if rows.shape[1:] != (self.width, self.channels) or rows.dtype != self.dtype:
            raise ValueError(
                f"rows are {rows.shape} {rows.dtype}; "
                f"expected [n, {self.width}, {self.channels}] {self.dtype}"
            )
        self._written += len(rows)
        if self._written > self.height:
            raise ValueError(f"{self._written} rows written; the picture has {self.height}")
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish and rename the file, or remove it if anything went wrong."""
        if error is not None:
            # the file's own context removes it
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            if self._written < self.height:
                raise OutputError(
                    f"{self.path}: only {self._written} of {self.height} rows came; nothing is kept"
                )
            if len(self._pending):
                self._put_strips([self._pending])
            self._finish()

    def _put(self, data: bytes) -> int:
        """Append bytes at an even place; where they begin."""
        if self._file is None:
            raise ValueError("write within the writer's `with` block")
        with writing(self.path):
            at = self._file.seek(0, os.SEEK_END)
            self._file.write(b"\0" * (at % 2) + data)
        return at + at % 2

    def _put_strips(self, strips: list[Array]) -> None:
        # a few at a time: what is packed and not yet written must not grow with the band
        for start in range(0, len(strips), 8):
            for data in self._pool.map(self._packed, strips[start : start + 8]):
                self._offsets.append(self._put(data))
                self._counts.append(len(data))

    def _packed(self, strip: Array) -> bytes:
        little = strip.astype(strip.dtype.newbyteorder("<"), copy=False)
        if self._level == 0:
            return little.tobytes()
        if self._has_predictor():
            differences = little.copy()
            differences[:, 1:] -= little[:, :-1]
            little = differences
        return zlib.compress(little.tobytes(), self._level)

    def _has_predictor(self) -> bool:
        # the floating point predictor would pack better, and fewer programs could read it
        return self._level > 0 and self.dtype.kind == "u"

    def _finish(self) -> None:
        icc, exif, xmp, dpi = self._metadata
        entries: dict[int, Entry] = {}
        if exif:
            entries, subs = exif_directories(exif)
            for tag, ifd in subs.items():
                entries[tag] = long(0)
                at = self._put(b"")
                at = self._put(encode_ifd(ifd, at, self.big))
                entries[tag] = Entry(LONG8, 1, struct.pack("<Q", at)) if self.big else long(at)
        if dpi:
            entries |= resolution_entries(dpi)
        for tag, data in ((34675, icc), (700, xmp)):
            if data:
                entries[tag] = Entry(7 if tag == 34675 else 1, len(data), data)
        entries |= self._layout()
        at = self._put(encode_ifd(entries, self._put(b""), self.big))
        if self._file is not None:
            with writing(self.path):
                self._file.seek(8 if self.big else 4)
                self._file.write(struct.pack("<Q" if self.big else "<I", at))

    def _layout(self) -> dict[int, Entry]:
        wide = "<Q" if self.big else "<I"
        places = [
            b"".join(struct.pack(wide, v) for v in vs) for vs in (self._offsets, self._counts)
        ]
        n, kind, colours = len(self._offsets), LONG8 if self.big else LONG, self.channels
        bits = np.full(colours, DEPTHS[self.dtype], "<u2").tobytes()
        form = np.full(colours, 3 if self.dtype.kind == "f" else 1, "<u2").tobytes()
        layout = {
            256: long(self.width),
            257: long(self.height),
            258: Entry(SHORT, colours, bits),
            259: short(8 if self._level else 1),
            262: short(RGB if colours > 2 else 1),
            273: Entry(kind, n, places[0]),
            277: short(colours),
            278: long(self._strip_rows),
            279: Entry(kind, n, places[1]),
            284: short(1),
            339: Entry(SHORT, colours, form),
        }
        if self._has_predictor():
            layout[317] = short(2)
        if colours in (2, 4):
            layout[338] = short(_UNASSOCIATED)
        return layout
