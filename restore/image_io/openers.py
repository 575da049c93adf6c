"""How each format is opened: its header first, its pixels when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

import numpy as np
from PIL import TiffImagePlugin

from restore.image_io import codecs, png
from restore.image_io.colour import cmyk_converter, from_pillow
from restore.image_io.exif import ORIENTATION, build_exif, fit_exif, orientation_of
from restore.image_io.picture import Picture, PictureFormat, PictureInfo
from restore.image_io.source import Opened, PathLike
from restore.image_io.tiff import TiffPage
from restore.image_io.tiff_stream import TiffRows


def _open_png(file: BinaryIO, _: PathLike) -> Opened:
    header = png.scan(file)
    depth = 16 if header.bits == 16 else 8
    size = (header.width, header.height)
    info = PictureInfo(*size, header.channels, depth, "png", header.has_alpha, header.n_frames)
    samples = header.channels + header.has_alpha
    return Opened(
        info,
        header.width * header.height * samples * depth // 8,
        orientation_of(header.exif),
        lambda: png.decode(file, header),
    )


def _open_tiff(file: BinaryIO, path: PathLike) -> Opened:
    page = TiffPage(file)
    orientation = orientation_of(build_exif(page.ifd0, page.sub_ifds))
    size = (page.width, page.height)
    if page.n_frames > 1 or page.refusal() is not None:
        return _open_whole_tiff(file, page, orientation)
    rows = TiffRows.of_page(path, page)
    colours = rows.channels - rows.has_alpha
    depth = 8 * rows.dtype.itemsize
    info = PictureInfo(*size, colours, depth, "tiff", rows.has_alpha, page.n_frames)

    def decode() -> Picture:
        samples = rows.read(0, rows.height)
        notes = list(rows.notes)
        if samples.dtype == np.float32 and (samples.min() < 0 or samples.max() > 1):
            low, high = float(samples.min()), float(samples.max())
            notes.append(f"float samples reach from {low:.4g} to {high:.4g}; expected 0 to 1")
        alpha = np.ascontiguousarray(samples[..., -1]) if rows.has_alpha else None
        pixels = np.ascontiguousarray(samples[..., :colours])
        return Picture(pixels, alpha, rows.icc, rows.exif, rows.dpi, rows.xmp, "tiff", tuple(notes))

    decoded = page.width * page.height * page.samples * rows.dtype.itemsize
    return Opened(info, decoded, orientation, decode)


def _open_whole_tiff(file: BinaryIO, page: TiffPage, orientation: int) -> Opened:
    """A page that only Pillow's libtiff can decode: JPEG, fax and other codecs, YCbCr."""
    channels = 1 if page.colours == 1 else 3
    has_alpha = page.samples > page.colours
    size = (page.width, page.height)
    depth = 8 if max(page.bits) <= 8 else 16
    info = PictureInfo(*size, channels, depth, "tiff", has_alpha, page.n_frames)

    def decode() -> Picture:
        reason = page.refusal()
        file.seek(0)
        try:
            image = TiffImagePlugin.TiffImageFile(file)
            if max(page.bits) > 8:
                # it would keep the upper eight bits and say nothing
                raise ValueError("more than 8 bits")
            image.load()
        except (OSError, SyntaxError, ValueError, KeyError) as error:
            raise ValueError(f"{reason} ({error})") from error
        icc, notes = page.icc, list[str]()
        if image.mode == "CMYK":
            convert, icc, note = cmyk_converter(icc)
            notes.append(note)
            pixels, alpha = convert(np.array(image)), None
        else:
            pixels, alpha = from_pillow(image)
        exif = build_exif(page.ifd0, page.sub_ifds)
        if exif and ORIENTATION not in image.getexif():
            # loading has turned the pixels and removed the tag
            exif = fit_exif(exif, image.width, image.height)
        return Picture(pixels, alpha, icc, exif, page.dpi, page.xmp, "tiff", tuple(notes))

    return Opened(info, page.width * page.height * page.samples, orientation, decode)


OPENERS: dict[PictureFormat, Callable[[BinaryIO, PathLike], Opened]] = {
    "png": _open_png,
    "jpg": lambda file, _: codecs.open_jpeg(file),
    "webp": lambda file, _: codecs.open_webp(file),
    "tiff": _open_tiff,
    "bmp": lambda file, _: codecs.open_bmp(file),
}
