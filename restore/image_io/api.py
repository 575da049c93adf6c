"""Picture files in and out, with what they carry: alpha, 16 bits, gray, ICC, EXIF, XMP, dpi.

What a format cannot carry is said in notes, never dropped in silence. Values are rounded, never
truncated. PNG, JPEG, WebP, TIFF and BMP are read by content and written by name.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from restore.atomic import atomic_output, output_error
from restore.errors import OutputError, UsageError
from restore.image_io import codecs, png_write
from restore.image_io.exif import (
    build_exif,
    fit_exif,
    fit_xmp,
    orientation_of,
    resolution_entries,
    with_resolution,
)
from restore.image_io.foreign import foreign_format, foreign_info, foreign_picture
from restore.image_io.openers import OPENERS
from restore.image_io.picture import (
    FORMATS,
    ForeignFormat,
    Picture,
    PictureFormat,
    PictureInfo,
    check_picture,
    icc_channels,
    on_white,
    to_depth,
    upright,
)
from restore.image_io.sinks import Carried, Raster
from restore.image_io.source import (
    DEFAULT_MAX_PIXELS,
    SUFFIXES,
    OtherFormatError,
    PathLike,
    check_opened,
    decoding,
    opened_file,
    suffix_note,
)
from restore.image_io.tiff_write import TiffRowWriter

PICTURE_SUFFIXES = SUFFIXES  # lower case, with the dot, to format

# the longest side that a format, or its encoder, takes
_MAX_SIDE: dict[PictureFormat, int] = {
    "png": 2**31 - 1,
    "jpg": 65500,
    "webp": 16383,
    "tiff": 2**32 - 1,
    "bmp": 2**31 - 1,
}
_MAX_BMP_BYTES = 2**32 - 2**12


def read_picture(path: PathLike, *, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> Picture:
    """Read a picture upright, with all that `Picture` can carry.

    Args:
        path: a PNG, JPEG, WebP, TIFF or BMP file; its content decides which, not its name.
        max_pixels: refuse larger pictures before decoding them, and files that decode to more than
            128 MiB and 2000 times their size. None lifts both limits.

    Raises:
        ImageError: missing, unreadable, damaged, cut short, animated, of several pages, too large,
            or no picture; the message says which and what to do.
    """
    foreign = foreign_format(path)
    try:
        if foreign is not None:
            return _upright_foreign(path, foreign, max_pixels)
        return _read_file(path, max_pixels)
    except OtherFormatError as other:
        return _upright_foreign(path, other.fmt, max_pixels, str(other))


def _upright_foreign(
    path: PathLike, fmt: ForeignFormat, max_pixels: int | None, what: str = ""
) -> Picture:
    # libvips has turned it already
    return _made_upright(foreign_picture(path, fmt, max_pixels, what), 1)


def _read_file(path: PathLike, max_pixels: int | None) -> Picture:
    with opened_file(path) as (file, fmt):
        with decoding(path):
            opened = OPENERS[fmt](file, path)
        check_opened(path, opened, os.fstat(file.fileno()).st_size, max_pixels)
        with decoding(path):
            picture = opened.decode()
            # a decoder that turned the picture itself has said so in the EXIF block
            picture = _made_upright(picture, orientation_of(picture.exif))
    return replace(picture, notes=(*suffix_note(path, fmt), *picture.notes))


def probe(path: PathLike) -> PictureInfo:
    """What a picture file says about itself, from its header; no pixels are decoded.

    Raises:
        ImageError: as `read_picture`, but not for animations, pages or large sizes.
    """
    foreign = foreign_format(path)
    try:
        if foreign is not None:
            return foreign_info(path, foreign)
        with opened_file(path) as (file, fmt), decoding(path):
            opened = OPENERS[fmt](file, path)
    except OtherFormatError as other:
        return foreign_info(path, other.fmt, str(other))
    info = opened.info
    if opened.orientation > 4:
        return replace(info, width=info.height, height=info.width)
    return info


def _made_upright(picture: Picture, orientation: int) -> Picture:
    notes = list(picture.notes)
    pixels, alpha, dpi, icc = picture.pixels, picture.alpha, picture.dpi, picture.icc
    if orientation != 1:
        pixels = upright(pixels, orientation)
        alpha = None if alpha is None else upright(alpha, orientation)
        if dpi and orientation > 4:
            dpi = (dpi[1], dpi[0])
    if icc and icc_channels(icc) != pixels.shape[2]:
        notes.append("the ICC profile is not one of these colours and was left out")
        icc = None
    exif, xmp = _fitted(picture, pixels.shape[1], pixels.shape[0], notes)
    return replace(
        picture,
        pixels=pixels,
        alpha=alpha,
        dpi=dpi,
        icc=icc,
        exif=exif,
        xmp=xmp,
        notes=tuple(notes),
    )


def _fitted(
    picture: Picture, width: int, height: int, notes: list[str]
) -> tuple[bytes | None, bytes | None]:
    """EXIF and XMP that say upright and this size; a damaged EXIF block is dropped with a note."""
    exif = None
    if picture.exif:
        try:
            exif = fit_exif(picture.exif, width, height)
        except ValueError as error:
            notes.append(f"the EXIF block is damaged ({error}) and was left out")
    return exif, fit_xmp(picture.xmp, width, height, picture.exif) if picture.xmp else None


def losses(fmt: PictureFormat, picture: Picture) -> list[str]:
    """What `fmt` cannot carry of a picture, one note each; empty where nothing is lost.

    The loss of JPEG's and WebP's compression is no loss here, nor is gray stored as equal RGB.
    """
    found = []
    if picture.depth == 32 and fmt != "tiff":
        bits = 16 if fmt == "png" else 8
        found.append(f"{fmt} has no room for floating point: rounded to {bits} bits")
    elif picture.depth == 16 and fmt not in ("png", "tiff"):
        found.append(f"{fmt} has no room for 16 bits: rounded to 8")
    if picture.alpha is not None and fmt in ("jpg", "bmp"):
        found.append(f"{fmt} cannot carry alpha: composited on white")
    if fmt == "bmp":
        for name, data in (("ICC", picture.icc), ("EXIF", picture.exif), ("XMP", picture.xmp)):
            if data:
                found.append(f"bmp cannot carry {name}: left out")
    if fmt == "jpg":
        for name, data, limit in (
            ("ICC", picture.icc, codecs.MAX_JPEG_ICC),
            ("EXIF", picture.exif, codecs.MAX_JPEG_EXIF),
            ("XMP", picture.xmp, codecs.MAX_JPEG_XMP),
        ):
            if data and len(data) > limit:
                found.append(f"jpg cannot carry {name} of {len(data)} bytes: left out")
    return found


def auto_format(picture: Picture) -> tuple[PictureFormat, list[str]]:
    """The format to write a picture in when none is asked for, and why if it is not the source's.

    The source's format where it takes the size and carries everything, otherwise PNG.
    """
    fmt = picture.source_format
    lost = _too_large(fmt, picture) or losses(fmt, picture)
    if not lost or fmt == "png":
        return fmt, []
    return "png", [f"written as png, because {reason}" for reason in lost]


def _too_large(fmt: PictureFormat, picture: Picture) -> list[str]:
    height, width, channels = picture.pixels.shape
    limit = _MAX_SIDE[fmt]
    if max(height, width) > limit:
        return [f"{fmt} takes at most {limit} pixels a side and this is {width} x {height}"]
    if fmt == "bmp" and height * (width * channels + 3) > _MAX_BMP_BYTES:
        return [f"bmp ends at 4 GiB and this is {width} x {height}"]
    return []


def write_picture(
    path: PathLike,
    picture: Picture,
    *,
    fmt: PictureFormat,
    quality: int | None = None,
    lossless: bool = False,
) -> list[str]:
    """Write a picture under `path`, whole or not at all; the folder must exist.

    PNG, TIFF and BMP are exact; TIFF is deflated, 8, 16 or 32 (float) bits. A file that stands
    there already is replaced at the end, and stays as it was if anything fails.

    Args:
        path: where to; its suffix is not looked at.
        picture: its notes are not repeated.
        fmt: the format to write.
        quality: 1 to 100 for jpg and webp, 95 if None; webp at 100 is lossless, and jpg from 90 up
            keeps every pixel's colour (no subsampling).
        lossless: webp without loss; what png, tiff and bmp are anyway.

    Returns:
        Notes: what the format could not carry, one sentence each.

    Raises:
        OutputError: the picture does not fit the format, or the file cannot be written.
        UsageError: quality or fmt is outside of what is listed, or jpg is to be lossless.
        ValueError: the picture's arrays do not fit each other.
    """
    check_picture(picture)
    if fmt not in FORMATS:
        raise UsageError(f"format {fmt!r} cannot be written; choose one of {', '.join(FORMATS)}")
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality is {quality}; choose 1 to 100")
    if lossless and fmt == "jpg":
        raise UsageError("jpg has no lossless form here; choose png, tiff or webp")
    too_large = _too_large(fmt, picture)
    if too_large:
        raise OutputError(f"{path}: {too_large[0]}; choose png or tiff")
    for samples in (picture.pixels, picture.alpha):
        if samples is not None and samples.dtype == np.float32 and not np.isfinite(samples).all():
            raise OutputError(f"{path}: the picture holds NaN or infinity; nothing is written")
    notes = losses(fmt, picture)
    if quality is not None and fmt not in ("jpg", "webp"):
        notes.append(f"{fmt} is lossless: quality {quality} has no effect")
    ready = _carried(fmt, picture, notes)
    try:
        _encode(Path(path), ready, fmt, 95 if quality is None else quality, lossless)
    except MemoryError as error:
        raise OutputError(f"{path}: there is not enough memory to encode it as {fmt}") from error
    except OSError as error:
        raise output_error(path, error) from error
    return notes


def _carried(fmt: PictureFormat, picture: Picture, notes: list[str]) -> Picture:
    """The part of a picture that `fmt` carries; `losses` has said what that leaves out."""
    pixels, alpha, icc = picture.pixels, picture.alpha, picture.icc
    if fmt != "tiff" and (picture.depth == 32 or fmt != "png"):
        depth = 16 if fmt == "png" else 8
        # composited before it is rounded to 8 bits, or it would be rounded twice
        flat = fmt in ("jpg", "bmp") and alpha is not None
        first = 16 if flat and picture.depth > 8 else depth
        pixels = to_depth(pixels, 16 if first == 16 else 8)
        alpha = None if alpha is None else to_depth(alpha, 16 if first == 16 else 8)
        if flat and alpha is not None:
            pixels, alpha = to_depth(on_white(pixels, alpha), 8), None
    exif, xmp = _fitted(picture, pixels.shape[1], pixels.shape[0], notes)
    if icc and icc_channels(icc) != pixels.shape[2]:
        notes.append("the ICC profile is not one of these colours and was left out")
        icc = None
    if fmt == "webp":
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
            if icc:
                notes.append("webp has no gray, so the gray ICC profile was left out")
                icc = None
        if alpha is not None and (alpha == 255).all():
            notes.append("webp does not store an alpha that is opaque everywhere")
        if picture.dpi and exif is None:
            exif = build_exif(resolution_entries(picture.dpi), {})
        elif picture.dpi and exif and not codecs.exif_dpi(exif):
            exif = with_resolution(exif, picture.dpi)
    if fmt == "jpg":
        icc = icc if icc and len(icc) <= codecs.MAX_JPEG_ICC else None
        exif = exif if exif and len(exif) <= codecs.MAX_JPEG_EXIF else None
        xmp = xmp if xmp and len(xmp) <= codecs.MAX_JPEG_XMP else None
    return replace(picture, pixels=pixels, alpha=alpha, icc=icc, exif=exif, xmp=xmp)


def _encode(path: Path, picture: Picture, fmt: PictureFormat, quality: int, lossless: bool) -> None:
    """Encode what `_carried` left, and write it."""
    if fmt == "tiff":
        _write_tiff(path, picture)
        return
    if fmt == "png":
        with atomic_output(path) as file:
            png_write.encode(file.write, picture)
        return
    try:
        if fmt == "jpg":
            data = codecs.encode_jpeg(picture, quality)
        elif fmt == "webp":
            data = codecs.encode_webp(picture, quality, lossless or quality == 100)
        else:
            data = codecs.encode_bmp(picture)
    except (OSError, ValueError) as error:
        # encoders report every failure so; nothing was written to the disk yet
        raise OutputError(f"{path}: cannot be encoded as {fmt}: {error}; choose png") from error
    with atomic_output(path) as file:
        file.write(data)


def _write_tiff(path: Path, picture: Picture) -> None:
    samples = picture.pixels
    height, width, channels = samples.shape
    channels += picture.alpha is not None
    carried = Carried(picture.icc, picture.exif, picture.xmp, picture.dpi)
    raster = Raster(height, width, channels, samples.dtype)
    with TiffRowWriter(path, raster, carried) as writer:
        for y in range(0, height, 1024):
            band = samples[y : y + 1024]
            if picture.alpha is not None:
                band = np.concatenate([band, picture.alpha[y : y + 1024, :, None]], axis=2)
            writer.write(band)
