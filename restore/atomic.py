"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from restore.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NAME_KEPT = 40  # characters of the name in the temporary one
# what a killed process leaves: its file's name, its machine, a random number
_PART = re.compile(r"\.(.*)\.([0-9a-f]{4})-[0-9a-f]{8}\.part", re.DOTALL)
_MACHINE = f"{zlib.crc32(os.uname().nodename.encode()) & 0xFFFF:04x}" if fcntl else "0000"
_PART_AGE = 60.0  # seconds: a younger one may be one that is not locked yet
_LONG_NAME_AGE = 600.0  # names that are cut short may begin alike
_OTHERS_AGE = 86400.0  # of another machine, whose locks not every file system tells
_swept: set[str] = set()  # folders that this process has cleaned

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
    errno.ELOOP: "the link leads back to itself; name a file",
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
    What a killed process left under such a name goes with the next file that is written there.

    Raises:
        OutputError: what stands at `path` is a folder, a device or a pipe, or the file cannot be
            created, flushed or renamed. An exception of the body passes unchanged; see `writing`.
    """
    # through the link, as a plain open(path, "wb") writes
    target = Path(os.path.realpath(path))
    if target.is_symlink():  # through all links, and still one
        raise output_error(path, OSError(errno.ELOOP, "too many links on the way"))
    if target.is_dir():
        raise output_error(path, IsADirectoryError(errno.EISDIR, "is a folder"))
    if target.exists() and not target.is_file():
        # a rename would put a file in the place of the device
        raise OutputError(
            f"{os.fspath(path)}: cannot be written: {target} is a device or a pipe; name a file"
        )
    # a long name with the ending added could pass the file system's limit
    part = target.with_name(_part_name(target.name))
    with writing(path):
        file = part.open("xb+")
    _lock(file)
    _sweep(target.parent)
    try:
        yield file
        with writing(path):
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:  # Windows renames no open file; elsewhere it stays locked till then
                file.close()
            if target.exists():
                os.chmod(part, stat.S_IMODE(target.stat().st_mode))
            os.replace(part, target)
            file.close()
    except BaseException:
        # closing flushes again, and fails again on a full disk
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what killed programs left of `path`; for callers who know that nobody writes it now.

    Of names longer than 40 characters only what was not touched for ten minutes, as other files'
    temporary names may begin alike.
    """
    target = Path(os.path.realpath(path))
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            found = _PART.fullmatch(entry.name)
            if found is None or found[1] != target.name[:_NAME_KEPT]:
                continue
            if len(target.name) > _NAME_KEPT and _age(entry) <= _LONG_NAME_AGE:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def _part_name(name: str) -> str:
    """A temporary name for a file or folder, which `_PART` knows again."""
    return f".{name[:_NAME_KEPT]}.{_MACHINE}-{secrets.token_hex(4)}.part"


def _lock(file: BinaryIO) -> bool:
    """Whether this process alone holds the file now; its end lets go, however it comes."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or a file system that has no locks
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder, once in a process.

    Nothing is lost by what stays: its name is hidden, and no command takes it for a picture.
    """
    if str(folder) in _swept:
        return
    _swept.add(str(folder))
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if found := _PART.fullmatch(entry.name):
                wanted = _PART_AGE if found[2] == _MACHINE else _OTHERS_AGE
                with contextlib.suppress(OSError):
                    _remove_if_left(entry, wanted)


def _remove_if_left(entry: os.DirEntry[str], age: float) -> None:
    if entry.is_file(follow_symlinks=False) and _age(entry) > age:
        with open(entry.path, "rb+") as file:
            if _lock(file):
                os.unlink(entry.path)


def _age(entry: os.DirEntry[str]) -> float:
    """Seconds since it was written to."""
    return time.time() - entry.stat(follow_symlinks=False).st_mtime


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder under a temporary name that takes the place of `path` at a clean end.

    Any exception, KeyboardInterrupt too, removes it and leaves what stood at `path` as it was. A
    folder that stands there is replaced as a whole.

    Raises:
        OutputError: a file stands at `path`, or the folder cannot be created or renamed.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir():
        raise output_error(path, FileExistsError(errno.EEXIST, "is a file"))
    part = target.with_name(_part_name(target.name))
    old = part.with_suffix(".old")
    with writing(path):
        part.mkdir()
    try:
        yield part
        with writing(path):
            if target.exists():
                # no system replaces a folder that is not empty
                os.replace(target, old)
            try:
                os.replace(part, target)
            except OSError:
                if old.exists():
                    os.replace(old, target)
                raise
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
