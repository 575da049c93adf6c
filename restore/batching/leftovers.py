"""What killed programs leave: files under the temporary names of `restore.atomic`."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

_NAME_KEPT = 40  # characters of a name that the temporary one begins with
_OLD = 600.0  # seconds
_END = re.compile(r"\.([0-9a-f]{4}-)?[0-9a-f]{8}\.part")  # perhaps a machine, a random number


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what killed programs left of `path`; for callers who know that nobody writes it now.

    Of names longer than 40 characters only what was not touched for ten minutes, as other files'
    temporary names may begin alike.
    """
    target = Path(os.path.realpath(path))
    start = f".{target.name[:_NAME_KEPT]}"
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            is_of_it = entry.name.startswith(start) and _END.fullmatch(entry.name[len(start) :])
            if is_of_it and (len(target.name) <= _NAME_KEPT or _is_old(entry)):
                os.unlink(entry.path)


def _is_old(entry: os.DirEntry[str]) -> bool:
    return time.time() - entry.stat().st_mtime > _OLD
