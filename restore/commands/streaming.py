"""Pictures that go through in parts: read by rows, written by tiles or rows, never held whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from restore.atomic import writing
from restore.commands.files import Job, TargetFormat
from restore.commands.room import check_room
from restore.errors import ImageError
from restore.extras import has_package
from restore.image_io import DEFAULT_MAX_PIXELS, read_picture
from restore.image_io.exif import fit_exif, fit_xmp
from restore.image_io.foreign import open_rows
from restore.image_io.picture import PictureInfo, icc_channels
from restore.image_io.png_write import PngRowWriter
from restore.image_io.row_files import NotInPartsError, PictureRows, RowFile
from restore.image_io.sinks import Carried, Raster, RowSink
from restore.image_io.tiff_tiles import TiffTileWriter
from restore.image_io.tiff_write import TiffRowWriter
from restore.image_io.tile_sink import TileSink
from restore.image_io.zarr_rows import ZarrTileWriter
from restore.model import Model
from restore.upscaling import Progress, RunReport, memory, output_size, upscale_rows

if TYPE_CHECKING:
    from restore.commands.batch import Outcome, Settings
    from restore.upscaling.progress import ProgressCallback

STREAM_SHARE = 0.25  # of the free memory; a decoder, encoder or resize holds a second copy
_IN_PARTS = ("tiff", "png", "zarr")  # formats that are written in parts
_NOT_VERIFIED = (
    "--verify-tiles holds the whole picture in memory, and this one is too large for that; leave "
    "it out"
)


def goes_in_parts(job: Job, settings: Settings, outscale: float) -> bool:
    """Whether a picture goes through in parts.

    It does where it and its result would fill the memory, and it can; and where the result's
    format or layout is one that is only written so.
    """
    info = job.info
    if info is None:
        return False
    target = target_of(job, info, settings, outscale)[1]
    height, width = output_size(info.height, info.width, outscale)
    if target == "zarr" or (target == "tiff" and settings.layout.asked):
        return True
    if target not in _IN_PARTS:
        return False
    tiled = target == "tiff" and settings.layout.tile_of(height * width) > 0
    return (tiled or is_too_large(info, settings, outscale)) and _reads_in_parts(job)


def is_too_large(info: PictureInfo, settings: Settings, outscale: float) -> bool:
    """Whether a picture and its result would fill the memory, or its pixels pass the limit."""
    pixels, limit = info.width * info.height, settings.max_pixels
    if limit is not None and pixels > limit:
        # what somebody asked to be refused is refused, but for TIFF, which never was
        return info.fmt == "tiff" or limit == DEFAULT_MAX_PIXELS
    samples = pixels * (1 + outscale**2) * (info.channels + info.has_alpha)
    return samples * info.depth / 8 > STREAM_SHARE * memory.free_bytes(torch.device("cpu"))


def target_of(
    job: Job, info: PictureInfo, settings: Settings, outscale: float
) -> tuple[Path, TargetFormat | str]:
    """Name and format of a result: the job's, or TIFF where "auto" meets what is written whole."""
    if job.fmt is not None or info.fmt in _IN_PARTS:
        return job.target, job.fmt or info.fmt
    if is_too_large(info, settings, outscale) and has_package("pyvips"):
        return job.target.with_suffix(".tif"), "tiff"
    return job.target, info.fmt


def _reads_in_parts(job: Job) -> bool:
    try:
        with open_rows(job.source):
            return True
    except ImageError:  # of a kind that has to be decoded whole, which will tell what is wrong
        return False


def stream(
    job: Job,
    outcome: Outcome,
    model: Model,
    settings: Settings,
    take: Callable[[Path, Job, str], None],
    progress: ProgressCallback | None,
) -> None:
    """Restore a picture in parts.

    Args:
        job: the picture.
        outcome: is filled in.
        model: restores it.
        settings: how.
        take: takes a name for a result that was not planned, and why; OutputError if it is taken.
        progress: is told of tiles, and of the tiles of smaller levels.

    Raises:
        RestoreError: it failed; nothing is left of the result.
    """
    assert job.info is not None
    outscale = float(model.scale if settings.outscale is None else settings.outscale)
    too_large = is_too_large(job.info, settings, outscale)
    if settings.verify_tiles and too_large:
        raise ImageError(f"{job.source}: {_NOT_VERIFIED}")
    target, fmt = target_of(job, job.info, settings, outscale)
    if target != job.target:
        take(target, job, f"{job.info.fmt} is written only whole")
        outcome.notes.append(f"written as {fmt}, because {job.info.fmt} is written only whole")
    with opened(job, settings) as source:
        height, width = output_size(source.height, source.width, outscale)
        outcome.before, outcome.after = (source.width, source.height), (width, height)
        outcome.notes += source.notes
        check_room_for(job, settings, outscale)
        writer = _writer(target, str(fmt), (height, width), source, settings, outcome)
        make_folder(target.parent)
        report = outcome.report = RunReport()
        if isinstance(writer, TileSink) and progress is not None:
            writer.on_level_tile = _levels_told(progress, report)
        with writer as sink:
            upscale_rows(
                source,
                sink,
                model,
                outscale=settings.outscale,
                tile=settings.tile,
                tile_pad=settings.tile_pad,
                tta=settings.tta,
                padding=settings.padding,
                progress=progress,
                report=report,
            )
    outcome.notes += report.notes
    if too_large:
        outcome.notes.append("read and written in bands, to save memory")
    outcome.target = target


def check_room_for(job: Job, settings: Settings, outscale: float) -> None:
    """Refuse a result that the disk has no room for, see `check_room`."""
    if job.info is not None:
        target, fmt = target_of(job, job.info, settings, outscale)
        size = output_size(job.info.height, job.info.width, outscale)
        check_room(job, job.info, target, str(fmt), size, settings.layout)


@contextmanager
def opened(job: Job, settings: Settings) -> Iterator[RowFile]:
    """The rows of a picture, held as a whole where it cannot be read otherwise.

    Raises:
        ImageError: it cannot be read, or is above the limit of pixels.
    """
    try:
        rows = open_rows(job.source)
    except NotInPartsError:
        rows = PictureRows(job.source, read_picture(job.source, max_pixels=settings.max_pixels))
    with rows:
        yield rows


def _writer(
    target: Path,
    fmt: str,
    size: tuple[int, int],
    source: RowFile,
    settings: Settings,
    outcome: Outcome,
) -> RowSink | TileSink:
    layout = settings.layout
    carried = Carried(
        _fitting_icc(source, outcome),
        _fitted_exif(source, outcome),
        fit_xmp(source.xmp, *outcome.after, source.exif) if source.xmp else None,
        source.dpi,
    )
    what = (target, Raster(*size, source.channels, source.dtype), carried)
    if fmt == "zarr":
        return ZarrTileWriter(*what, pyramid=layout.pyramid)
    if fmt == "png":
        if source.dtype.kind == "f":
            outcome.notes.append("png has no room for floating point: rounded to 16 bits")
        return PngRowWriter(*what)
    compression = layout.compression or "deflate"
    tile = layout.tile_of(size[0] * size[1])
    if not tile:
        return TiffRowWriter(*what, compression=compression)
    return TiffTileWriter(*what, tile=tile, pyramid=layout.pyramid, compression=compression)


def _levels_told(progress: ProgressCallback, report: RunReport) -> Callable[[int, int], None]:
    """Tell of levels as of more tiles, so that a bar goes on to the end."""
    return lambda done, total: progress(Progress(report.tiles + done, report.tiles + total))


def _fitting_icc(source: RowFile, outcome: Outcome) -> bytes | None:
    if source.icc and icc_channels(source.icc) != source.channels - source.has_alpha:
        outcome.notes.append("the ICC profile is not one of these colours and was left out")
        return None
    return source.icc


def _fitted_exif(source: RowFile, outcome: Outcome) -> bytes | None:
    """EXIF that says upright, as the rows are read, and the size of the result."""
    if not source.exif:
        return None
    try:
        return fit_exif(source.exif, *outcome.after)
    except ValueError as error:
        outcome.notes.append(f"the EXIF block is damaged ({error}) and was left out")
        return None


def make_folder(folder: Path) -> None:
    """Make the folder of a result, when there is a result and not before."""
    with writing(folder):
        os.makedirs(folder, exist_ok=True)
