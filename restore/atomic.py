"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from restore.errors import OutputError

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another folder",
    getattr(errno, "EDQUOT", -1): "free some of the quota or choose another folder",
    errno.EACCES: "allow writing there or choose another folder",
    errno.EPERM: "allow writing there or choose another folder",
    errno.EROFS: "choose a folder that can be written",
    errno.ENOENT: "create the folder first",
    errno.ENOTDIR: "a part of the path is a file; choose a path whose parents are folders",
    errno.EISDIR: "it is a folder; name a file in it",
    errno.EEXIST: "a file stands where a folder has to be; rename it or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EFBIG: "the file system cannot hold a file so large; choose another folder",
}


def output_error(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """What the user reads when writing `path` failed: where, why, what to do."""
    why = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0, "check the folder and the disk, then try again")
    return OutputError(f"{os.fspath(path)}: cannot be written: {why}; {remedy}")


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Around calls that only write to `path`: raises their OSError as `output_error`."""
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error


@contextlib.contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file, open to read and write, that takes the place of `path` at a clean end.

    It has a temporary name in the same folder until then; any exception, KeyboardInterrupt too,
    removes it and leaves what stood at `path` as it was. A symbolic link at `path` is followed.

    Raises:
        OutputError: what stands at `path` is a folder, a device or a pipe, or the file cannot be
            created, flushed or renamed. An exception of the body passes unchanged; see `writing`.
    """
    # through the link, as a plain open(path, "wb") writes
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise output_error(path, IsADirectoryError(errno.EISDIR, "is a folder"))
    if target.exists() and not target.is_file():
        # a rename would put a file in the place of the device
        raise OutputError(
            f"{os.fspath(path)}: cannot be written: {target} is a device or a pipe; name a file"
        )
    # a long name with the ending added could pass the file system's limit
    part = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.part")
    with writing(path):
        file = part.open("xb+")
    try:
        yield file
        with writing(path):
            file.flush()
            os.fsync(file.fileno())
            file.close()
            if target.exists():
                os.chmod(part, stat.S_IMODE(target.stat().st_mode))
            os.replace(part, target)
    except BaseException:
        # closing flushes again, and fails again on a full disk
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            part.unlink()
        raise
