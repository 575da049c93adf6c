"""Pictures that are no PNG, JPEG, WebP, TIFF or BMP file, and any picture a few rows at a time.

Shape letters: C samples of a pixel (1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from restore.errors import ImageError
from restore.extras import has_package
from restore.image_io.picture import ForeignFormat, Picture, PictureFormat, PictureInfo
from restore.image_io.png_rows import PngRows
from restore.image_io.row_files import NotInPartsError, RowFile
from restore.image_io.source import OtherFormatError, PathLike, opened_file
from restore.image_io.tiff_stream import TiffRows
from restore.image_io.vips_rows import VipsRows
from restore.image_io.zarr_rows import ZARR_SUFFIX, ZarrRows, is_zarr

# whole slides, which libvips reads itself or by OpenSlide; many look like TIFF files of many pages
SLIDE_SUFFIXES = frozenset(
    {".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu", ".zvi"}
)
# of files in folders that are taken for pictures where pyvips is there
FOREIGN_SUFFIXES = SLIDE_SUFFIXES | {".jp2", ".j2k", ".jpx", ".jxl"}


def foreign_format(path: PathLike) -> ForeignFormat | None:
    """The format of a Zarr folder or a slide, by its name; None of anything else."""
    if Path(path).suffix.lower() in SLIDE_SUFFIXES:
        return "slide"
    return "zarr" if Path(path).is_dir() and is_zarr(path) else None


def is_foreign_name(path: PathLike) -> bool:
    """Whether something in a folder is a picture by its name, that the extra [large] can read."""
    suffix = Path(path).suffix.lower()
    if suffix == ZARR_SUFFIX:
        return is_zarr(path)
    return suffix in FOREIGN_SUFFIXES and has_package("pyvips")


def foreign_rows(path: PathLike, fmt: ForeignFormat, what: str = "") -> RowFile:
    """Open a picture of such a format.

    Args:
        path: of the file or folder.
        fmt: its format.
        what: it is, for the message where the package is missing.

    Raises:
        ImageError: a package is missing, or the picture cannot be read.
    """
    if fmt == "zarr":
        return ZarrRows(path)
    return VipsRows(path, what, slide=fmt == "slide")


def foreign_info(path: PathLike, fmt: ForeignFormat, what: str = "") -> PictureInfo:
    """What such a picture says about itself; raises as `foreign_rows`."""
    with foreign_rows(path, fmt, what) as rows:
        colours, depth = rows.channels - rows.has_alpha, 8 * rows.dtype.itemsize
        return PictureInfo(rows.width, rows.height, colours, depth, fmt, rows.has_alpha, 1)


def foreign_picture(
    path: PathLike, fmt: ForeignFormat, max_pixels: int | None, what: str = ""
) -> Picture:
    """Such a picture as a whole, not yet upright.

    Raises:
        ImageError: as `foreign_rows`, or it is above the limit of pixels.
    """
    with foreign_rows(path, fmt, what) as rows:
        pixels = rows.width * rows.height
        if max_pixels is not None and pixels > max_pixels:
            raise ImageError(
                f"{path}: {rows.width} x {rows.height} is {pixels:,} pixels, above the limit of "
                f"{max_pixels:,}; raise it with --max-pixels if the file is trusted, or write tiff"
            )
        samples = rows.read(0, rows.height)
        alpha = np.ascontiguousarray(samples[..., -1]) if rows.has_alpha else None
        colours = np.ascontiguousarray(samples[..., : rows.channels - rows.has_alpha])
        notes = tuple(rows.notes)
        # TIFF carries whatever they do
        return Picture(colours, alpha, rows.icc, rows.exif, rows.dpi, rows.xmp, "tiff", notes)


def open_rows(path: PathLike) -> RowFile:
    """Open a picture to read it a few rows at a time.

    Raises:
        ImageError: it cannot be read in parts, or at all; the message says why, and names the
            extra [large] where that would help.
    """
    fmt = foreign_format(path)
    if fmt is not None:
        return foreign_rows(path, fmt)
    try:
        with opened_file(path) as (_, known):
            pass
    except OtherFormatError as other:
        return foreign_rows(path, other.fmt, str(other))
    try:
        return _own_rows(path, known)
    except NotInPartsError:
        if not has_package("pyvips"):
            raise
    return VipsRows(path)


def _own_rows(path: PathLike, fmt: PictureFormat) -> RowFile:
    if fmt == "tiff":
        return TiffRows(path)
    if fmt == "png":
        return PngRows(path)
    raise NotInPartsError(
        f"{path}: {fmt} is read in parts only by the package pyvips: "
        "pip install 'restore-sr[large]'"
    )
