"""What the page asks for, and what it gets: everything but its looks."""

from __future__ import annotations

import errno
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from restore.errors import RestoreError, UsageError
from restore.image_io import PictureInfo, probe
from restore.upscaling import output_size
from restore.web.desk import Desk, Ticket
from restore.web.limits import Limits, checked_upload, safe_names
from restore.web.shelf import Shelf
from restore.web.visits import FOLDER_MARK, Visits, remove
from restore.web.work import Order, Standing, Work, Worker, take_inputs


@dataclass(frozen=True)
class Listed:
    """A picture that was uploaded, by its header.

    Attributes:
        name: of the file.
        size: in bytes.
        info: None where the header cannot be read.
        after: width and height of the result.
        problem: why it will not be restored.
    """

    name: str
    size: int
    info: PictureInfo | None = None
    after: tuple[int, int] = (0, 0)
    problem: str = ""


class Service:
    """The queue, the models and the visitors of one run of the page.

    Args:
        shelf: the models.
        limits: what is taken.
        base: the folder of uploads and results; nobody else's.
        log: is told of defects of the program.
    """

    def __init__(
        self, shelf: Shelf, limits: Limits, base: Path, log: Callable[[str], None]
    ) -> None:
        self.ending = False  # whether the page is about to be closed for all
        self.shelf = shelf
        self.limits = limits
        self.base = base
        self._visits: Visits[Work] = Visits(base)
        self._log = log
        self._worker = Worker(shelf, limits, log)
        self._desk: Desk[Work] = Desk(self._run, limits.max_waiting)
        self._starting = threading.Lock()

    def listed(self, visitor: str | None, uploads: Sequence[str], scale: float) -> list[Listed]:
        """What the uploads of a page are, and what would come of each."""
        visit = self._visits.of(visitor)
        rows, paths = list[Listed](), set[Path]()
        for upload in uploads:
            try:
                path = self._checked(upload)
            except UsageError as error:
                rows.append(Listed(Path(upload).name, 0, problem=str(error)))
                continue
            paths.add(path)
            rows.append(self._look(path, scale))
        self._visits.uses(visit, paths)
        return rows

    def _checked(self, upload: str) -> Path:
        return checked_upload(upload, self.base, self.base.glob(f"{FOLDER_MARK}*"))

    def _look(self, path: Path, scale: float) -> Listed:
        size = path.stat().st_size
        try:
            info = probe(path)
        except RestoreError as error:
            return Listed(path.name, size, problem=_without_path(str(error), path))
        height, width = output_size(info.height, info.width, scale)
        problem = ""
        try:
            self.limits.check_picture(path.name, info, scale)
        except RestoreError as error:
            problem = str(error)
        if info.n_frames > 1:
            problem = f"{path.name}: holds {info.n_frames} frames or pages; split it first"
        return Listed(path.name, size, info, (width, height), problem)

    def start(self, visitor: str | None, uploads: Sequence[str], order: Order) -> Ticket[Work]:
        """Put the pictures of a page into the queue.

        Raises:
            UsageError: there are none or too many, one is no upload, the page has some under way
                already, the queue is full, or the disk is.
        """
        with self._starting:
            visit = self._visits.of(visitor)
            if visit.busy:
                raise UsageError(
                    "pictures of this page are under way already; wait for them, or stop them"
                )
            self.limits.check_count(len(uploads))
            self.shelf.entry(order.model)
            paths = [self._checked(upload) for upload in uploads]
            names = safe_names([path.name for path in paths])
            try:
                take_inputs(paths, names, visit.folder)
            except OSError as error:
                full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
                why = "the disk is full" if full else error.strerror or str(error)
                raise UsageError(f"the pictures could not be taken: {why}; try again") from error
            work = Work(order, visit.folder, names, Standing(len(names)))
            visit.ticket = self._desk.submit(work)
            return visit.ticket

    def _run(self, work: Work, ticket: Ticket[Work]) -> None:
        try:
            self._worker.run(work, ticket)
        # a defect that one click meets must not cost the others
        except Exception as error:
            work.problem = (
                f"internal error: {type(error).__name__}: {error}; the terminal that started the "
                "page has more"
            )
            self._log(traceback.format_exc())
        finally:
            # who asked may be gone
            if not self._visits.has(work.folder):
                remove(work.folder)

    def ahead(self, ticket: Ticket[Work]) -> int:
        """How many clicks come before one."""
        return self._desk.ahead(ticket)

    def waiting(self) -> int:
        """Clicks under way and in the queue."""
        return self._desk.length()

    def stop(self, visitor: str | None) -> bool:
        """Stop what a page has under way; whether there was anything."""
        ticket = self._visits.of(visitor).ticket
        if ticket is None or ticket.done:
            return False
        self._desk.stop(ticket)
        return True

    def work(self, visitor: str | None) -> Work | None:
        """The last click of a page."""
        ticket = self._visits.of(visitor).ticket
        return None if ticket is None else ticket.task

    def leave(self, visitor: str | None) -> None:
        """A page was closed: stop its work and delete its files."""
        visit = self._visits.end(visitor)
        if visit is not None and visit.ticket is not None:
            self._desk.stop(visit.ticket)

    def sweep(self) -> None:
        """Delete what nobody has looked at for an hour."""
        self._visits.sweep()

    def close(self, seconds: float = 3.0) -> bool:
        """End all work; files go with the folder. Whether none is left after so long."""
        return self._desk.close(seconds)


def _without_path(text: str, path: Path) -> str:
    return text.replace(str(path), path.name)
