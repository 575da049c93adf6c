"""Many pictures through one model, and what became of each."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from restore.commands import streaming
from restore.commands.files import Job
from restore.commands.large import Layout
from restore.errors import ImageError, OutputError, RestoreError
from restore.image_io import (
    DEFAULT_MAX_PIXELS,
    PICTURE_SUFFIXES,
    auto_format,
    read_picture,
    write_picture,
)
from restore.image_io.foreign import open_rows
from restore.model import Model
from restore.padding import Padding
from restore.upscaling import (
    RowSource,
    TileAgreement,
    upscale_picture,
    verify_tiles,
)
from restore.upscaling.pixels import ArraySource
from restore.upscaling.progress import ProgressCallback, RunReport
from restore.upscaling.run import TileChoice, check_channels, checked_tile


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
    layout: Layout = field(default_factory=Layout)  # of TIFF and Zarr files


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
        """Whether a picture goes through in parts, see `streaming`."""
        return streaming.goes_in_parts(job, self.settings, self.outscale)

    def _compute(self, job: Job, outcome: Outcome, progress: ProgressCallback | None) -> None:
        settings, model = self.settings, self.model
        streaming.check_room_for(job, settings, self.outscale)
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
        target = job.target
        fmt = None if job.fmt == "zarr" else job.fmt
        if fmt is None:
            fmt, why = auto_format(result)
            outcome.notes += why
            if fmt != PICTURE_SUFFIXES.get(target.suffix.lower()):
                target = target.with_suffix(f".{fmt}")
                self._take(target, job, why[0])
        streaming.make_folder(target.parent)
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

    def _take(self, target: Path, _: Job, why: str) -> None:
        """Refuse a name that a result has for that reason and another's stands for."""
        if target in self._taken:
            raise OutputError(f"{target}: stands for another picture's result; {why}: give --ext")

    def _stream(self, job: Job, outcome: Outcome, progress: ProgressCallback | None) -> None:
        settings, model = self.settings, self.model
        streaming.stream(job, outcome, model, settings, self._take, progress)
        if job.compare and outcome.target:
            with streaming.opened(job, settings) as before, open_rows(outcome.target) as after:
                _compare(job.compare, before, after, model, before.icc)
        if settings.verify_tiles:
            picture = read_picture(job.source, max_pixels=settings.max_pixels)
            outcome.agreement = verify_tiles(picture, model, settings.tile, settings.tile_pad)


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
