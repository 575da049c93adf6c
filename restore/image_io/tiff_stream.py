"""TIFF pictures larger than memory, read in bands of rows.

Shape letters: W columns, C samples of a pixel (1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha).
"""

from __future__ import annotations

import contextlib

import numpy as np

from restore.errors import ImageError
from restore.image_io.colour import cmyk_converter
from restore.image_io.exif import build_exif, orientation_of
from restore.image_io.picture import Array, icc_channels, to_depth, unpremultiply
from restore.image_io.row_files import NotInPartsError
from restore.image_io.source import PathLike, decoding, opened_file
from restore.image_io.tiff import MINISWHITE, PALETTE, SEPARATED, TiffPage

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
                raise NotInPartsError(
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
            raise NotInPartsError(f"{path}: {refusal}; save it as gray or RGB, with deflate or LZW")
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
