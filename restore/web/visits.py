"""Who is on the page, what belongs to them, and when it goes.

Every visitor's files lie in the folder of one run of the page. A folder of results has a name that
nobody can guess, since whoever knows the address of a file can download it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TextIO, TypeVar

from restore.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from restore.web.desk import Ticket

Task = TypeVar("Task")

KEPT_SECONDS = 3600.0
FOLDER_MARK = "visit-"  # what the names of visitors' folders begin with
_BASE_MARK = "restore-web-"
_LOCK = ".lock"  # in a folder of a run, held while it lasts


@dataclass
class Visit(Generic[Task]):
    """One open page."""

    folder: Path  # of inputs and results; made when there are any
    uploads: set[Path] = field(default_factory=set)
    ticket: Ticket[Task] | None = None
    touched: float = field(default_factory=time.monotonic)

    @property
    def busy(self) -> bool:
        """Whether its pictures wait or are computed."""
        return self.ticket is not None and not self.ticket.done


class Visits(Generic[Task]):
    """All open pages, by the name that the browser gives itself.

    Args:
        base: the folder of uploads and of all visitors' folders.
        kept_seconds: how long what nobody looks at is kept.
    """

    def __init__(self, base: Path, kept_seconds: float = KEPT_SECONDS) -> None:
        self.base = base
        self._kept = kept_seconds
        self._visits: dict[str, Visit[Task]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._visits)

    def of(self, name: str | None) -> Visit[Task]:
        """The visit of a page, which is there from now on; UsageError without a name."""
        if not name:
            raise UsageError("the request names no page; open the page in a browser")
        with self._lock:
            if name not in self._visits:
                folder = self.base / f"{FOLDER_MARK}{secrets.token_hex(16)}"
                self._visits[name] = Visit(folder)
            visit = self._visits[name]
            visit.touched = time.monotonic()
            return visit

    def uses(self, visit: Visit[Task], uploads: set[Path]) -> None:
        """Note which uploads a page has shown: they are kept while it is open."""
        with self._lock:
            visit.uploads |= uploads

    def has(self, folder: Path) -> bool:
        """Whether a folder is that of an open page."""
        with self._lock:
            return any(visit.folder == folder for visit in self._visits.values())

    def end(self, name: str | None) -> Visit[Task] | None:
        """A page was closed: delete what belonged to it. Returns the visit, if there was one."""
        with self._lock:
            visit = self._visits.pop(name or "", None)
            if visit is not None:
                self._delete(visit.uploads)
        if visit is not None:
            remove(visit.folder)
        return visit

    def sweep(self) -> list[Visit[Task]]:
        """Delete what nobody has looked at for too long; returns the visits that ended so."""
        now = time.monotonic()
        with self._lock:
            old = [
                name
                for name, visit in self._visits.items()
                if not visit.busy and now - visit.touched > self._kept
            ]
        ended = [visit for name in old if (visit := self.end(name)) is not None]
        with self._lock:
            used = {path for visit in self._visits.values() for path in visit.uploads}
            folders = {visit.folder for visit in self._visits.values()}
        oldest = time.time() - self._kept
        for entry in _entries(self.base):
            mine = entry in folders or entry.name == _LOCK or _holds(entry, used)
            if not mine and _modified(entry) < oldest:
                remove(entry)
        return ended

    def _delete(self, uploads: set[Path]) -> None:
        """Delete uploads that no open page shows (the same content is stored once)."""
        used = {path for visit in self._visits.values() for path in visit.uploads}
        for path in uploads - used:
            with contextlib.suppress(OSError):
                path.unlink()
            # the folder of an upload holds nothing else
            with contextlib.suppress(OSError):
                path.parent.rmdir()


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _holds(entry: Path, used: set[Path]) -> bool:
    return any(entry == path or entry in path.parents for path in used)


def _modified(entry: Path) -> float:
    """When an entry of a folder, or what lies in it, was last written; now if it is gone."""
    try:
        times = [entry.lstat().st_mtime]
        if entry.is_dir() and not entry.is_symlink():
            times += [path.lstat().st_mtime for path in entry.iterdir()]
        return max(times)
    except OSError:
        return time.time()


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it; what cannot be deleted stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A folder that nobody else can look into, deleted at the end, with all that is in it.

    First those are deleted that killed runs of this user left: no pictures are to stay behind.
    """
    parent = Path(tempfile.gettempdir())
    for entry in _entries(parent):
        if entry.name.startswith(_BASE_MARK) and _is_orphan(entry):
            remove(entry)
    base = Path(tempfile.mkdtemp(prefix=_BASE_MARK, dir=parent)).resolve()
    with open(base / _LOCK, "w") as lock:
        _try_lock(lock)
        try:
            yield base
        finally:
            remove(base)


def _is_orphan(folder: Path) -> bool:
    """Whether it is this user's and its run has ended; False where that cannot be told."""
    try:
        if fcntl is None or folder.is_symlink() or folder.lstat().st_uid != os.getuid():
            return False
        with open(folder / _LOCK, "r+") as lock:
            return _try_lock(lock)
    except OSError:
        return False


def _try_lock(file: TextIO) -> bool:
    """Lock a file until it is closed; False where somebody else holds it. Windows has no lock."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
