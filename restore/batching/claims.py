"""Who does what: a folder of files of which each can be made only once.

That a file system makes a file for exactly one of those who ask at once (O_EXCL) holds on local
disks and on network file systems (NFS since version 3, SMB, Lustre, CephFS) alike, and needs no
locks; locks, which data bases in a file such as SQLite depend on, are missing or void on many of
them, and a data base that two machines write without locks is lost.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

_UNSIGNED = 5.0  # seconds after which a claim without a name is given up: its maker was killed
_DONE = "done"


class Claims:
    """Claims on named pieces of work.

    A claim is the file `NAME.0`, and holds the worker's name. If that is dead, the one who makes
    `NAME.1` takes over, and so on. `NAME.done` says that the work is done.

    Args:
        folder: of the claims; made if need be.
        me: name of this worker.
        is_alive: whether another worker is.
    """

    def __init__(self, folder: Path, me: str, is_alive: Callable[[str], bool]) -> None:
        self.folder = folder
        self._me = me
        self._is_alive = is_alive
        self._unsigned: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def take_new(self, name: str) -> bool:
        """Take work that nobody has taken yet; False if somebody has."""
        return self._make(f"{name}.0")

    def take(self, name: str) -> list[str] | None:
        """Take work that nobody alive has.

        Returns:
            The dead workers that had it, oldest first; None if it is done or another has it.
        """
        former: list[str] = []
        while not self.is_done(name):
            file = f"{name}.{len(former)}"
            if self._make(file):
                return former
            owner = self._owner(file)
            if owner is None or self._is_alive(owner):
                return None
            former.append(owner)
        return None

    def give_back(self, name: str, former: int) -> None:
        """Undo a claim, as if it had never been."""
        with contextlib.suppress(OSError):
            (self.folder / f"{name}.{former}").unlink()

    def finish(self, name: str) -> None:
        """Say that the work is done."""
        (self.folder / f"{name}.{_DONE}").touch()

    def is_done(self, name: str) -> bool:
        """Whether the work is done."""
        return (self.folder / f"{name}.{_DONE}").exists()

    def done(self) -> set[str]:
        """All work that is done."""
        ending = f".{_DONE}"
        return {
            name.removesuffix(ending) for name in os.listdir(self.folder) if name.endswith(ending)
        }

    def _make(self, file: str) -> bool:
        try:
            with open(self.folder / file, "x", encoding="utf-8") as new:
                new.write(self._me)
        except FileExistsError:
            return False
        return True

    def _owner(self, file: str) -> str | None:
        """Whose claim it is, "" of a killed one that had not said so; None where that comes yet."""
        try:
            owner = (self.folder / file).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None  # just given back
        if owner:
            return owner
        since = self._unsigned.setdefault(file, time.monotonic())
        return "" if time.monotonic() - since > _UNSIGNED else None
