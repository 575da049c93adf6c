"""The pictures of one click: restored one after the other, with what became of each."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from restore.commands.batch import Batch, Outcome, Settings
from restore.commands.files import Extension, Job, Naming, Source, plan_jobs
from restore.errors import ImageError, RestoreError
from restore.upscaling import Progress
from restore.upscaling.run import TileChoice
from restore.web.desk import Ticket
from restore.web.limits import Limits
from restore.web.previews import Views, make_views
from restore.web.pulse import steps
from restore.web.shelf import Shelf

INPUTS, RESULTS, PREVIEWS = "inputs", "results", "previews"  # folders of a visit


@dataclass(frozen=True)
class Order:
    """What a person asked for.

    Attributes:
        model: its name on the shelf.
        outscale: output pixels per input pixel.
        ext: of the results.
        quality: 1 to 100, of jpg and webp.
        tile: longest side of a tile.
        tta: average over flips and turns.
    """

    model: str
    outscale: float
    ext: Extension = "auto"
    quality: int | None = None
    tile: TileChoice = "auto"
    tta: bool = False


@dataclass(frozen=True)
class Finished:
    """What became of a picture.

    Attributes:
        name: of the input.
        result: its file; None where there is none.
        before, after: width and height.
        seconds: it took.
        notes: sentences for the user.
        reason: why it failed.
        views: previews, where they could be made.
    """

    name: str
    result: Path | None = None
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    reason: str = ""
    views: Views | None = None


@dataclass
class Standing:
    """How far the pictures of a click are. Written by one thread, read by others."""

    count: int
    current: str = ""  # the picture under way
    number: int = 0  # 1 for the first
    tiles: tuple[int, int] = (0, 0)  # done and all
    share: float = 0.0  # of all work that is done
    began: float | None = None  # time.monotonic()
    doing: str = ""  # what is done beside the network

    @property
    def seconds_left(self) -> float | None:
        """A guess; None where nothing is known yet."""
        if self.began is None or self.share < 0.02:
            return None
        gone = time.monotonic() - self.began
        return gone * (1 - self.share) / self.share


@dataclass
class Work:
    """A click: what to restore, how far that is, and what came of it.

    Attributes:
        order: what was asked for.
        folder: of the visit; inputs lie in it, results and previews are written to it.
        names: of the inputs there, in order.
        standing: how far it is.
        finished: the pictures that are over, in order.
        archive: a zip of all results, where there are several.
        problem: why nothing could be begun, or what ended it.
    """

    order: Order
    folder: Path
    names: Sequence[str]
    standing: Standing
    finished: list[Finished] = field(default_factory=list)
    archive: Path | None = None
    problem: str = ""


class Worker:
    """Does the work of clicks; `run` is for a `Desk`.

    Args:
        shelf: the models.
        limits: of pictures.
        log: is told of defects of the program, for whoever started the page.
    """

    def __init__(self, shelf: Shelf, limits: Limits, log: Callable[[str], None]) -> None:
        self._shelf = shelf
        self._limits = limits
        self._log = log

    def run(self, work: Work, ticket: Ticket[Work]) -> None:
        """Restore the pictures of a click, each failure for itself."""
        work.standing.began = time.monotonic()
        work.standing.doing = "loading the model"
        try:
            model = self._shelf.model(work.order.model)
            jobs = self._jobs(work)
            batch = Batch(jobs, model, _settings(work.order, self._limits))
        except RestoreError as error:
            work.problem = _without_folders(str(error), work.folder)
            return
        except MemoryError:
            work.problem = "there is not enough memory to load the model"
            return
        following = Following(work.standing, ticket, [_pixels(job) for job in jobs])
        with steps(model, following.step):
            for number, job in enumerate(jobs, 1):
                ticket.check()
                following.begin(number, job.source.name)
                outcome = batch.run(job, following.progress)
                work.standing.doing = "preparing the comparison"
                work.finished.append(self._finished(work, outcome, number))
                following.end()
        work.standing.doing = "packing the zip file"
        self._pack(work)

    def _jobs(self, work: Work) -> list[Job]:
        """The pictures with the names of their results; those beyond the limits as failures."""
        scale = work.order.outscale
        results = work.folder / RESULTS
        suffix = "_restored" if scale == 1 else f"_x{scale:g}"
        naming = Naming(results, suffix, work.order.ext, is_folder=True)
        sources = [Source(work.folder / INPUTS / name) for name in work.names]
        jobs, _ = plan_jobs(sources, naming)
        return [self._within_limits(job, scale) for job in jobs]

    def _within_limits(self, job: Job, scale: float) -> Job:
        if job.info is None:
            return job
        try:
            self._limits.check_picture(str(job.source), job.info, scale)
        except ImageError as error:
            return Job(job.source, job.target, job.fmt, problem=str(error))
        return job

    def _finished(self, work: Work, outcome: Outcome, number: int) -> Finished:
        name = outcome.job.source.name
        if outcome.trace:
            self._log(f"{name}: {outcome.reason}\n{outcome.trace}")
        reason = _without_folders(outcome.reason, work.folder)
        if outcome.status != "done" or outcome.target is None:
            return Finished(name, reason=reason or f"{name}: was not restored")
        views, notes = None, [_without_folders(note, work.folder) for note in outcome.notes]
        previews = work.folder / PREVIEWS
        try:
            previews.mkdir(exist_ok=True)
            views = make_views(outcome.job.source, outcome.target, previews, str(number))
        except (RestoreError, MemoryError, OSError) as error:
            notes.append(f"there is no comparison: {_without_folders(str(error), work.folder)}")
        return Finished(
            name,
            outcome.target,
            outcome.before,
            outcome.after,
            outcome.seconds,
            tuple(notes),
            views=views,
        )

    def _pack(self, work: Work) -> None:
        """All results in one file, where there are several."""
        results = [done.result for done in work.finished if done.result is not None]
        if len(results) < 2:
            return
        target = work.folder / "restored.zip"
        try:
            # what is in it is compressed already
            with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
                for path in results:
                    archive.write(path, path.name)
        except OSError as error:
            with contextlib.suppress(OSError):
                target.unlink()
            work.problem = (
                f"the zip file could not be written ({error.strerror or error}); download the "
                "pictures one by one"
            )
            return
        work.archive = target


class Following:
    """Turns the steps of pictures, tiles and groups of a network into one share of all work.

    Args:
        standing: is kept up to date.
        ticket: is asked whether to go on, at every step.
        pixels: of the pictures, what each counts.
    """

    def __init__(self, standing: Standing, ticket: Ticket[Work], pixels: Sequence[int]) -> None:
        self._standing = standing
        self._ticket = ticket
        self._pixels = pixels
        self._all = max(1, sum(pixels))
        self._done = 0  # pixels of finished pictures
        self._number = 0

    def begin(self, number: int, name: str) -> None:
        """A picture begins, 1 the first."""
        self._number = number
        self._standing.number, self._standing.current = number, name
        self._standing.tiles, self._standing.doing = (0, 0), "reading"

    def progress(self, step: Progress) -> None:
        """Tiles are done."""
        self._ticket.check()
        self._standing.tiles = step.done, step.total
        self._standing.doing = "writing the result" if step.done == step.total else ""
        self._tell(0.0)

    def step(self, share: float) -> None:
        """A share of the tile under way is done."""
        self._ticket.check()
        self._standing.doing = ""
        self._tell(share)

    def end(self) -> None:
        """The picture is over."""
        self._done += self._pixels[self._number - 1]
        self._standing.share = self._done / self._all

    def _tell(self, of_tile: float) -> None:
        done, total = self._standing.tiles
        of_picture = min(1.0, (done + of_tile) / total) if total else 0.0
        share = (self._done + of_picture * self._pixels[self._number - 1]) / self._all
        # passes over the same tile, and tiles that are begun again, do not lead back
        self._standing.share = max(self._standing.share, share)


def _settings(order: Order, limits: Limits) -> Settings:
    return Settings(
        outscale=order.outscale,
        tile=order.tile,
        tta=order.tta,
        quality=order.quality,
        max_pixels=limits.max_pixels,
    )


def _pixels(job: Job) -> int:
    return 0 if job.info is None else job.info.width * job.info.height


def _without_folders(text: str, folder: Path) -> str:
    """A message without the paths of this machine, which say nothing to a visitor."""
    for inner in (INPUTS, RESULTS, PREVIEWS, ""):
        text = text.replace(f"{folder / inner}{os.sep}", "")
    return text.replace(str(folder), "the page's folder")


def take_inputs(uploads: Sequence[Path], names: Sequence[str], folder: Path) -> None:
    """Put uploads into a visit's folder, which is emptied first, under their own names.

    Raises:
        OSError: there is no room, or an upload is gone.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / INPUTS).mkdir(parents=True)
    for upload, name in zip(uploads, names, strict=True):
        try:
            os.link(upload, folder / INPUTS / name)
        except OSError:  # a file system without links
            shutil.copyfile(upload, folder / INPUTS / name)
