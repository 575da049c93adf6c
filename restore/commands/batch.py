"""Many pictures through one model, and what became of each."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from restore.atomic import writing
from restore.commands.files import Job
from restore.errors import ImageError, OutputError, RestoreError
from restore.image_io import (
    DEFAULT_MAX_PIXELS,
    PICTURE_SUFFIXES,
    auto_format,
    read_picture,
    write_picture,
)
from restore.image_io.exif import fit_exif, fit_xmp
from restore.image_io.tiff_stream import TiffRows, TiffRowWriter
from restore.model import Model
from restore.padding import Padding
from restore.upscaling import (
    RowSource,
    TileAgreement,
    memory,
    upscale_picture,
    upscale_rows,
    verify_tiles,
)
from restore.upscaling.pixels import ArraySource
from restore.upscaling.progress import ProgressCallback, RunReport
from restore.upscaling.run import TileChoice, check_channels, checked_tile, output_size

STREAM_SHARE = 0.25  # of the free memory; a decoder, encoder or resize holds a second copy


@dataclass(frozen=True)
class Settings:
    """What holds for every picture; see `upscale`, `read_picture` and `write_picture`."""

    outscale: float | None = None
    tile: TileChoice = "auto"
    tile_pad: int | None = None
    tta: bool = False
    padding: Padding = "reflect"
    quality: int | None = None
    max_pixels: int | None = DEFAULT_MAX_PIXELS  # of what is not streamed
    skip_existing: bool = False
    verify_tiles: bool = False  # compare tiles and the whole picture; twice the work more


@dataclass
class Outcome:
    """What became of a job."""

    job: Job
    status: Literal["done", "skipped", "failed"] = "failed"
    target: Path | None = None  # the file written
    before: tuple[int, int] = (0, 0)  # width and height
    after: tuple[int, int] = (0, 0)
    report: RunReport | None = None
    agreement: TileAgreement | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    reason: str = ""  # of a failure
    trace: str = ""  # of an internal error


class Batch:
    """Pictures to restore with the same model and settings.

    Args:
        jobs: from `plan_jobs`.
        model: from `restore.load`.
        settings: the same for every picture.
    """

    def __init__(self, jobs: Sequence[Job], model: Model, settings: Settings) -> None:
        check_channels(model)
        checked_tile(model, settings.tile, settings.tile_pad)
        self.jobs = jobs
        self.model = model
        self.settings = settings
        self.outscale = float(model.scale if settings.outscale is None else settings.outscale)
        # a result that changes its format on the way must not take another one's name
        self._taken = {path for job in jobs for path in job.outputs}

    def run(self, job: Job, progress: ProgressCallback | None = None) -> Outcome:
        """Restore one picture and write the result; errors are told in the outcome, not raised."""
        outcome = Outcome(job)
        began = time.perf_counter()
        try:
            if job.problem:
                raise ImageError(job.problem)
            if self.settings.skip_existing and job.is_done:
                outcome.status, outcome.target = "skipped", job.target
            else:
                compute = self._stream if self.streams(job) else self._compute
                compute(job, outcome, progress)
                outcome.status = "done"
        except RestoreError as error:
            outcome.reason = str(error)
        except MemoryError:
            outcome.reason = "there is not enough memory; close other programs or use a smaller -s"
        except OSError as error:
            outcome.reason = f"{error.filename or job.source}: {error.strerror or error}"
        # one picture that hits a defect must not cost the others
        except Exception as error:
            outcome.reason = f"internal error: {type(error).__name__}: {error}"
            outcome.trace = traceback.format_exc()
        if outcome.reason and str(job.source) not in outcome.reason:
            outcome.reason = f"{job.source}: {outcome.reason}"
        outcome.seconds = time.perf_counter() - began
        return outcome

    def streams(self, job: Job) -> bool:
        """Whether a TIFF goes through in bands, because it and its result would fill the memory."""
        info = job.info
        if info is None or info.fmt != "tiff" or (job.fmt or info.fmt) != "tiff":
            return False
        pixels, limit = info.width * info.height, self.settings.max_pixels
        if limit is not None and pixels > limit:
            return True
        samples = pixels * (1 + self.outscale**2) * (info.channels + info.has_alpha)
        if samples * info.depth / 8 <= STREAM_SHARE * memory.free_bytes(torch.device("cpu")):
            return False
        try:
            with TiffRows(job.source):
                return True
        except ImageError:  # of a kind that has to be decoded whole
            return False

    def _compute(self, job: Job, outcome: Outcome, progress: ProgressCallback | None) -> None:
        settings, model = self.settings, self.model
        picture = read_picture(job.source, max_pixels=settings.max_pixels)
        outcome.notes += picture.notes
        outcome.report = RunReport()
        result = upscale_picture(
            picture,
            model,
            outscale=settings.outscale,
            tile=settings.tile,
            tile_pad=settings.tile_pad,
            tta=settings.tta,
            padding=settings.padding,
            progress=progress,
            report=outcome.report,
        )
        outcome.notes += outcome.report.notes
        outcome.before, outcome.after = _size(picture.pixels.shape), _size(result.pixels.shape)
        target, fmt = job.target, job.fmt
        if fmt is None:
            fmt, why = auto_format(result)
            outcome.notes += why
            if fmt != PICTURE_SUFFIXES.get(target.suffix.lower()):
                target = target.with_suffix(f".{fmt}")
                if target in self._taken:
                    raise OutputError(
                        f"{target}: stands for another picture's result; {why[0]}: give --ext"
                    )
        _make_folder(target.parent)
        # "auto" keeps what the input was
        lossless = fmt == "webp" and job.fmt is None and settings.quality is None
        outcome.notes += write_picture(
            target, result, fmt=fmt, quality=settings.quality, lossless=lossless and result.lossless
        )
        outcome.target = target
        if job.compare:
            before, after = (ArraySource(p.pixels, p.alpha) for p in (picture, result))
            _compare(job.compare, before, after, model, picture.icc)
        if settings.verify_tiles:
            outcome.agreement = verify_tiles(picture, model, settings.tile, settings.tile_pad)

    def _stream(self, job: Job, outcome: Outcome, progress: ProgressCallback | None) -> None:
        settings, model = self.settings, self.model
        if settings.verify_tiles:
            raise ImageError(
                f"{job.source}: --verify-tiles holds the whole picture in memory, and this one is "
                "too large for that; leave it out"
            )
        with TiffRows(job.source) as source:
            height, width = output_size(source.height, source.width, self.outscale)
            outcome.before, outcome.after = (source.width, source.height), (width, height)
            outcome.notes += source.notes
            writer = TiffRowWriter(
                job.target,
                height,
                width,
                source.channels,
                source.dtype,
                icc=source.icc,
                exif=_fitted_exif(source, outcome),
                xmp=_fitted_xmp(source, outcome),
                dpi=source.dpi,
            )
            _make_folder(job.target.parent)
            with writer as sink:
                outcome.report = upscale_rows(
                    source,
                    sink,
                    model,
                    outscale=settings.outscale,
                    tile=settings.tile,
                    tile_pad=settings.tile_pad,
                    tta=settings.tta,
                    padding=settings.padding,
                    progress=progress,
                )
            outcome.notes += [*outcome.report.notes, "read and written in bands, to save memory"]
            outcome.target = job.target
            if job.compare:
                with TiffRows(job.target) as result:
                    _compare(job.compare, source, result, model, source.icc)


def _compare(
    path: Path, before: RowSource, after: RowSource, model: Model, icc: bytes | None
) -> None:
    # it draws, which takes long to load and is rarely asked for
    from restore.commands.compare import comparison

    shown = comparison(before, after, name=model.name, icc=icc)
    try:
        write_picture(path, shown, fmt="png")
    except OutputError as error:
        raise OutputError(
            f"{error} (the result itself is written, its comparison is not)"
        ) from error


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[1], shape[0]


def _fitted_exif(source: TiffRows, outcome: Outcome) -> bytes | None:
    """EXIF that says upright, as the rows are read, and the size of the result."""
    if not source.exif:
        return None
    try:
        return fit_exif(source.exif, *outcome.after)
    except ValueError as error:
        outcome.notes.append(f"the EXIF block is damaged ({error}) and was left out")
        return None


def _fitted_xmp(source: TiffRows, outcome: Outcome) -> bytes | None:
    """XMP that says what `_fitted_exif` says."""
    return fit_xmp(source.xmp, *outcome.after, source.exif) if source.xmp else None


def _make_folder(folder: Path) -> None:
    """Make the folder of a result, when there is a result and not before."""
    with writing(folder):
        os.makedirs(folder, exist_ok=True)
