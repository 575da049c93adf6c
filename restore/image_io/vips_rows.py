"""Pictures read in bands of rows by libvips: formats of its own, and large ones of ours.

Needs the package pyvips, of the extra [large].

Shape letters: W columns, C samples of a pixel (1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from restore.errors import ImageError
from restore.extras import load_extra
from restore.image_io.picture import Array
from restore.image_io.row_files import SequentialRows
from restore.image_io.source import PathLike, decoding

_EXIF_PREFIX = b"Exif\0\0"
_MM_PER_INCH = 25.4
_DTYPES = {"uchar": np.uint8, "ushort": np.uint16}
# taken as they are; what else there is becomes sRGB first
_GRAY, _RGB = ("b-w", "grey16"), ("srgb", "rgb", "rgb16")


class VipsRows(SequentialRows):
    """Rows of a picture that libvips can read; see `RowFile`. A context manager.

    Where the file's orientation puts another row first, libvips unpacks it to a temporary file.

    Raises:
        ImageError: pyvips is missing, or libvips cannot read the file; the message says which.
    """

    def __init__(self, path: PathLike, what: str = "", *, slide: bool = False) -> None:
        """Open the file and read its header, no pixels.

        Args:
            path: of the file.
            what: it is; begins a message.
            slide: its first page is the picture, others are its levels, label and thumbnail.
        """
        super().__init__()
        self.path = path
        self._what, self._slide = what or str(path), slide
        self._vips = load_extra("pyvips", "large", self._what, ImageError)
        self.icc: bytes | None = None
        self.exif: bytes | None = None
        self.xmp: bytes | None = None
        self.dpi: tuple[float, float] | None = None
        self.notes: list[str] = []
        self._region: Any = None
        with self._decoding():
            image = self._open()
            self.height, self.width = image.height, image.width
            self.has_alpha = bool(image.hasalpha())
            self.channels = image.bands
            self.dtype = np.dtype(_DTYPES[image.format])
            self._take_metadata(image)

    def __enter__(self) -> VipsRows:
        """The reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the file."""
        self._held = self._region = None

    @contextlib.contextmanager
    def _decoding(self) -> Iterator[None]:
        """Whatever goes wrong within, reported as an ImageError."""
        try:
            with decoding(self.path):
                yield
        except ImageError as error:
            told = str(error.__cause__ or "")
            if "not a known file format" not in told:
                raise
            raise ImageError(
                f"{self._what}: libvips reads it only where it was built to; that of the package "
                "pyvips-binary was not: remove it, and install the system's libvips "
                "(Debian: apt install libvips42)"
            ) from error

    def _open(self) -> Any:
        """The picture as restoration wants it: gray or RGB of 8 or 16 bits, upright."""
        new, name = self._vips.Image.new_from_file, str(self.path)
        # or what is missing of a damaged file would be gray
        image = new(name, access="sequential", fail_on="error")
        if _field(image, "orientation") not in (None, 0, 1):
            # by a temporary file, where it is large
            image = new(name, fail_on="error").autorot()
        pages = _field(image, "n-pages") or 1
        if pages > 1 and not self._slide:
            raise ImageError(
                f"{self.path}: holds {pages} pages; split it into single pictures first"
            )
        notes = []
        if image.interpretation not in (*_GRAY, *_RGB) and not (
            image.interpretation == "multiband"
            and image.bands in (1, 3)
            and image.format in _DTYPES
        ):
            notes.append(f"{image.interpretation} converted to sRGB by libvips")
            deep = image.format not in ("uchar", "char")
            image = image.colourspace("rgb16" if deep else "srgb")
        if image.format not in _DTYPES or image.bands not in (1, 2, 3, 4):
            raise ImageError(
                f"{self.path}: {image.bands} bands of {image.format} are not supported; save it "
                "as gray or RGB of 8 or 16 bits"
            )
        self.notes = notes
        return image

    def _take_metadata(self, image: Any) -> None:
        self.icc, exif, self.xmp = (
            _field(image, f"{name}-data") for name in ("icc-profile", "exif", "xmp")
        )
        if exif:
            self.exif = exif.removeprefix(_EXIF_PREFIX)
        # without a resolution it is one pixel a millimetre
        if image.xres > 0 < image.yres and (image.xres, image.yres) != (1, 1):
            self.dpi = image.xres * _MM_PER_INCH, image.yres * _MM_PER_INCH

    def _begin(self) -> None:
        with self._decoding():
            self._region = self._vips.Region.new(self._open())
        self._at = 0

    def _decode(self, n: int) -> Array:
        with self._decoding():
            data = self._region.fetch(0, self._at, self.width, n)
        self._at += n
        return np.frombuffer(data, self.dtype).reshape(n, self.width, self.channels)


def _field(image: Any, name: str) -> Any:
    """A piece of metadata, None where there is none."""
    return image.get(name) if image.get_typeof(name) else None
