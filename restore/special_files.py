"""Names that stand for no file: reading a pipe waits for a writer, reading a device never ends."""

from __future__ import annotations

import os
import stat


def special_file(path: str | os.PathLike[str]) -> str | None:
    """What a path leads to where that is no file and no folder, in words; None where it is.

    Raises:
        OSError: nothing is there, or it cannot be asked.
        ValueError: no system has such a path.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else None
