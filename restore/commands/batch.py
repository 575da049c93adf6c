"""Many pictures through one model, and what became of each.

A picture goes through three stages: `Batch.read`, `Batch.compute`, `Batch.write`. The second is for
the thread that the network runs in; the others may go on beside it, in any thread.
"""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from restore.batching.names import Names, key
from restore.batching.result_names import ResultNames, within
from restore.commands import streaming
from restore.commands.files import Job, Plan
from restore.commands.large import Layout
from restore.errors import ImageError, OutputError, RestoreError
from restore.image_io import (
    DEFAULT_MAX_PIXELS,
    PICTURE_SUFFIXES,
    Picture,
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


@dataclass
class Work:
    """A picture between the stages of its way."""

    job: Job
    outcome: Outcome
    is_over: bool = False  # skipped, failed, or streamed to its end
    picture: Picture | None = None  # None also where it is streamed
    result: Picture | None = None


class Batch:
    """Pictures to restore with the same model and settings.

    Args:
        jobs: from `plan_jobs`.
        model: from `restore.load`.
        settings: the same for every picture.
        names: which names results have; those of `jobs` if None.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        model: Model,
        settings: Settings,
        names: ResultNames | None = None,
    ) -> None:
        check_channels(model)
        checked_tile(model, settings.tile, settings.tile_pad)
        self.jobs = jobs
        self.model = model
        self.settings = settings
        self.outscale = float(model.scale if settings.outscale is None else settings.outscale)
        # a result that changes its format on the way must not take another one's name
        self.names = names or _names_of(jobs)

    def run(self, job: Job, progress: ProgressCallback | None = None) -> Outcome:
        """Restore one picture and write the result; errors are told in the outcome, not raised."""
        work = self.read(job)
        self.compute(work, progress)
        return self.write(work)

    def weight(self, job: Job) -> int:
        """Bytes of a picture and its result in memory; 0 where the header tells no size."""
        if job.info is None:
            return 0
        samples = job.info.width * job.info.height * (job.info.channels + job.info.has_alpha)
        return int(samples * (1 + self.outscale**2) * job.info.depth / 8)

    def read(self, job: Job) -> Work:
        """Decode a picture, unless it cannot be, is to be skipped, or is read in bands later."""
        work = Work(job, Outcome(job))
        with _told(work):
            if job.problem:
                raise ImageError(job.problem)
            if job.is_renamed:
                self._take(job.target, job, f"its content is {job.target.suffix[1:]}")
            if self.settings.skip_existing and job.is_done:
                work.outcome.status, work.outcome.target = "skipped", job.target
                work.is_over = True
            elif not self.streams(job):
                streaming.check_room_for(job, self.settings, self.outscale)
                work.picture = read_picture(job.source, max_pixels=self.settings.max_pixels)
                work.outcome.notes += work.picture.notes
        return work

    def compute(self, work: Work, progress: ProgressCallback | None = None) -> None:
        """Run the network; a picture in bands is read and written on the way."""
        if work.is_over:
            return
        with _told(work):
            if work.picture is None:
                self._stream(work.job, work.outcome, progress)
                work.outcome.status = "done"
                work.is_over = True
            else:
                self._compute(work, work.picture, progress)
        if self.settings.verify_tiles and work.picture is not None and work.result is not None:
            with _told(work):
                work.outcome.agreement = verify_tiles(
                    work.picture, self.model, self.settings.tile, self.settings.tile_pad
                )
            work.is_over = False  # the result is there, even if it could not be compared

    def write(self, work: Work) -> Outcome:
        """Write the result, and say what became of the picture; its pixels are dropped."""
        picture, result, work.picture, work.result = work.picture, work.result, None, None
        if not work.is_over and picture is not None and result is not None:
            verified = not work.outcome.reason
            with _told(work):
                self._write(work.job, work.outcome, picture, result)
                work.outcome.status = "done" if verified else "failed"
        return work.outcome

    def _take(self, target: Path, job: Job, why: str) -> None:
        """Take a name for a result that was not planned."""
        if not self.names.take(target, job.source):
            raise OutputError(f"{target}: stands for another picture's result; {why}: give --ext")

    def streams(self, job: Job) -> bool:
        """Whether a picture goes through in parts, see `streaming`."""
        return streaming.goes_in_parts(job, self.settings, self.outscale)

    def _compute(self, work: Work, picture: Picture, progress: ProgressCallback | None) -> None:
        settings, outcome = self.settings, work.outcome
        outcome.report = RunReport()
        result = upscale_picture(
            picture,
            self.model,
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
        work.result = result

    def _write(self, job: Job, outcome: Outcome, picture: Picture, result: Picture) -> None:
        settings, target = self.settings, job.target
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
            _compare(job.compare, before, after, self.model, picture.icc)

    def _stream(self, job: Job, outcome: Outcome, progress: ProgressCallback | None) -> None:
        settings, model = self.settings, self.model
        streaming.stream(job, outcome, model, settings, self._take, progress)
        if job.compare and outcome.target:
            with streaming.opened(job, settings) as before, open_rows(outcome.target) as after:
                _compare(job.compare, before, after, model, before.icc)
        if settings.verify_tiles:
            picture = read_picture(job.source, max_pixels=settings.max_pixels)
            outcome.agreement = verify_tiles(picture, model, settings.tile, settings.tile_pad)


@contextlib.contextmanager
def _told(work: Work) -> Iterator[None]:
    """Around a stage: what goes wrong in it is told in the outcome, and its time counts there."""
    job, outcome = work.job, work.outcome
    began, reason = time.perf_counter(), ""
    try:
        yield
    except RestoreError as error:
        reason = str(error)
    except MemoryError:
        reason = "there is not enough memory; close other programs or use a smaller -s"
    except OSError as error:
        reason = f"{error.filename or job.source}: {error.strerror or error}"
    # one picture that hits a defect must not cost the others
    except Exception as error:
        reason = f"internal error: {type(error).__name__}: {error}"
        outcome.trace = traceback.format_exc()
    outcome.seconds += time.perf_counter() - began
    if reason:
        known = str(job.source) in reason
        outcome.reason, work.is_over = reason if known else f"{job.source}: {reason}", True


def _names_of(jobs: Sequence[Job]) -> ResultNames:
    if isinstance(jobs, Plan):
        return ResultNames(jobs.folder, jobs.taken)
    paths = [path for job in jobs for path in (*job.outputs, job.source)]
    top = key(os.sep)
    return ResultNames(top, Names.of(within(top, key(path)) for path in paths))


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
