"""Which names results have, so that one that changes its format on the way takes no other's place.

A picture may lie under a name of another format, or its result may not fit its format and become a
PNG: then the name of the result is known only when the picture is read.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from restore.batching.names import Names, PathLike, digest, key, seen_from


class ResultNames:
    """Names planned for results and those of the pictures, and names that changed on the way.

    Args:
        folder: of the results; names in it count by their path from there, so that machines that
            have it under different names agree.
        planned: `within(folder, path)` of all planned results, and of the pictures.
        shared: a folder where workers tell each other which names changed; None for one process.
    """

    def __init__(self, folder: PathLike, planned: Names, shared: Path | None = None) -> None:
        self._folder = key(folder)
        self._real_folder = os.path.realpath(folder)
        self.planned = planned
        self._shared = shared
        self._lock = threading.Lock()
        self._changed: dict[str, str] = {}  # name to picture

    def take(self, target: Path, source: Path) -> bool:
        """Take a name that was not planned for a picture's result; False if it is another's."""
        name, owner = within(self._folder, key(target)), seen_from(self._folder, key(source))
        real = within(self._real_folder, os.path.realpath(target))
        if name in self.planned or real in self.planned:
            return False
        if self._shared is not None:
            return _take_shared(self._shared, name, owner)
        with self._lock:
            return self._changed.setdefault(name, owner) == owner


def within(folder: str, path: str) -> str:
    """A path without its folder, where it lies in that."""
    return path.removeprefix(folder.rstrip(os.sep) + os.sep)


def _take_shared(folder: Path, name: str, owner: str) -> bool:
    """Write who has a name, or read whether it is this one, of a run before."""
    file = folder / f"{digest(name):016x}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(exist_ok=True)
        # "x": only one of several workers can make it
        with open(file, "x", encoding="utf-8", errors="surrogateescape") as new:
            new.write(owner)
        return True
    held = file.read_text(encoding="utf-8", errors="surrogateescape")
    if not held:  # its maker was killed before it could say who it is
        file.write_text(owner, encoding="utf-8", errors="surrogateescape")
    return held in ("", owner)
