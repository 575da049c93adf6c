"""Small pictures for the browser, of before and after: never the result itself.

Shape letters: H, W rows and columns of a source, h and w of its preview, C channels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restore.commands.compare import on_white, panels
from restore.errors import ImageError
from restore.image_io import Picture, PictureFormat, probe, read_picture, write_picture
from restore.image_io.picture import icc_channels
from restore.image_io.tiff_stream import TiffRows
from restore.resizing import imresize
from restore.upscaling import RowSource
from restore.upscaling.pixels import AnyArray, ArraySource, from_unit

LONGEST_WHOLE = 1280  # pixels of a preview of the whole picture
LONGEST_DETAIL = 680  # pixels of the result; what a window has room for, so that none is lost
MOST_DECODED = 2**26  # pixels; a larger TIFF is read in bands
_BAND = 512  # rows read at once


@dataclass(frozen=True)
class View:
    """Two pictures of one size, to be laid over each other."""

    before: Path
    after: Path
    width: int
    height: int


@dataclass(frozen=True)
class Views:
    """What can be looked at of one picture."""

    whole: View
    whole_is_reduced: bool
    detail: View | None  # None: the whole is shown pixel by pixel already


def make_views(before: Path, after: Path, folder: Path, name: str) -> Views:
    """Write the previews of an input and its result.

    Args:
        before: the input's file.
        after: the result's file.
        folder: to write to.
        name: what their names begin with.

    Raises:
        ImageError, OutputError: a file cannot be read or written.
    """
    with _rows(before) as (first, icc), _rows(after) as (second, new_icc):
        high, wide = second.height, second.width
        shrink = min(1.0, LONGEST_WHOLE / max(high, wide))
        size = max(1, round(high * shrink)), max(1, round(wide * shrink))
        pair = shown(first, *size), shown(second, *size)
        whole = _written(pair, (icc, new_icc), folder, f"{name}-whole", "jpg")
        detail = None
        if max(high, wide) > LONGEST_DETAIL:
            pair = panels(first, second, LONGEST_DETAIL)
            # without loss: it is looked at pixel by pixel
            detail = _written(pair, (icc, new_icc), folder, f"{name}-detail", "png")
    return Views(whole, shrink < 1, detail)


@contextlib.contextmanager
def _rows(path: Path) -> Iterator[tuple[RowSource, bytes | None]]:
    """A picture's rows and its profile; a large TIFF stays on the disk."""
    info = probe(path)
    if info.fmt == "tiff" and info.width * info.height > MOST_DECODED:
        try:
            rows = TiffRows(path)
        except ImageError:  # of a kind that has to be decoded whole
            pass
        else:
            with rows:
                yield rows, rows.icc
            return
    picture = read_picture(path, max_pixels=None)
    yield ArraySource(picture.pixels, picture.alpha), picture.icc


def _written(
    pair: tuple[AnyArray, AnyArray],
    profiles: tuple[bytes | None, bytes | None],
    folder: Path,
    name: str,
    fmt: PictureFormat,
) -> View:
    paths = [folder / f"{name}-{side}.{fmt}" for side in ("before", "after")]
    for path, pixels, icc in zip(paths, pair, profiles, strict=True):
        kept = icc if icc and icc_channels(icc) == pixels.shape[2] else None
        write_picture(path, Picture(pixels, icc=kept), fmt=fmt)
    height, width = pair[1].shape[:2]
    return View(paths[0], paths[1], width, height)


def shown(source: RowSource, h: int, w: int) -> AnyArray:
    """A picture of any size at h x w: reduced by means of squares, then by bicubic interpolation.

    Args:
        source: H x W, read in bands.
        h: rows of the result.
        w: columns of the result.

    Returns:
        [h, w, 1 or 3], uint8; transparent pixels are laid over white.
    """
    side = max(1, min(source.height // h, source.width // w))
    step = max(1, _BAND // side) * side
    bands = [
        _means(on_white(source.read(top, min(source.height, top + step))), side)
        for top in range(0, source.height, step)
    ]
    small = imresize(np.concatenate(bands), size=(h, w))
    return from_unit(np.clip(small, 0, 1), np.dtype(np.uint8))


def _means(rows: AnyArray, side: int) -> AnyArray:
    """[n, W, C] to the means of its squares, those at the ends perhaps smaller."""
    if side == 1:
        return rows
    for axis in (0, 1):
        starts = np.arange(0, rows.shape[axis], side)
        shape = [1, 1, 1]
        shape[axis] = len(starts)
        counts = np.diff(np.append(starts, rows.shape[axis])).reshape(shape)
        rows = np.add.reduceat(rows, starts, axis=axis) / counts.astype(np.float32)
    return rows
