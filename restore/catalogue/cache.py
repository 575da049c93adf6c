"""Copies of official checkpoints on this machine: where they lie, and what is known of them.

A copy has its SHA-256 beside it (NAME.pth.sha256, as `sha256sum -c` reads it), of the bytes that
were checked when it came: also where its authors published none, later damage shows.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from restore.atomic import atomic_output, output_error, writing
from restore.catalogue.entries import Entry
from restore.errors import CheckpointError, UsageError

VARIABLE = "RESTORE_CACHE"  # a folder to take in place of the platform's
_BLOCK = 2**20
_HEX = 64  # digits of a SHA-256


def models_folder() -> Path:
    """The folder of the copies; it need not be there yet.

    Raises:
        UsageError: the platform tells no home, or the variable names no whole path.
    """
    return _cache_folder() / "models"


def _cache_folder() -> Path:
    try:
        if given := os.environ.get(VARIABLE):
            folder = Path(given).expanduser()
            if not folder.is_absolute():
                raise UsageError(
                    f"{VARIABLE} is {given!r}; expected a whole path, as /data/restore"
                )
            return folder
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            base = Path(local) if local else Path.home() / "AppData" / "Local"
            return base / "restore-sr" / "Cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "restore-sr"
        # the specification of XDG: relative ones count as not set
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (base if base.is_absolute() else Path.home() / ".cache") / "restore-sr"
    except RuntimeError as error:  # of pathlib
        raise UsageError(
            f"no home folder is known ({error}); name a folder for models in {VARIABLE}"
        ) from error


def stored_path(entry: Entry, folder: Path | None = None) -> Path:
    """Where a checkpoint's copy lies, or would."""
    return (models_folder() if folder is None else folder) / entry.stored


def part_path(path: Path) -> Path:
    """Where a download of that file lies until it is whole."""
    return path.with_name(f"{path.name}.part")


def is_here(entry: Entry) -> bool:
    """Whether a copy is in the cache, of the size that it should have."""
    try:
        size = stored_path(entry).stat().st_size
    except OSError:
        return False
    return entry.size in (None, size)


def part_bytes(entry: Entry, folder: Path | None = None) -> int:
    """How much of an interrupted download is kept, in the cache or another folder."""
    try:
        return part_path(stored_path(entry, folder)).stat().st_size
    except OSError:
        return 0


def digest_of(path: Path, progress: Callable[[int, int], None] | None = None) -> str:
    """SHA-256 of a file as it lies on the disk.

    Args:
        path: of the file.
        progress: told of bytes read, of how many.

    Raises:
        CheckpointError: it cannot be read.
    """
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as file:
            size, done = path.stat().st_size, 0
            while block := file.read(_BLOCK):
                hasher.update(block)
                done += len(block)
                if progress is not None:
                    progress(done, size)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    return hasher.hexdigest()


def record(path: Path, digest: str) -> None:
    """Write down a copy's SHA-256 beside it."""
    beside = _record_path(path)
    with atomic_output(beside) as file, writing(beside):
        file.write(f"{digest}  {path.name}\n".encode())


def recorded(path: Path) -> str | None:
    """The SHA-256 that a copy had when it came; None where it was never written down."""
    try:
        text = _record_path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    digest = text.partition(" ")[0].strip().lower()
    return digest if len(digest) == _HEX and set(digest) <= set("0123456789abcdef") else None


def unrecord(path: Path) -> None:
    """Forget a copy's SHA-256, before another file takes its place."""
    with writing(path):
        _record_path(path).unlink(missing_ok=True)


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def take_in(source: Path, entry: Entry, digest: str) -> Path:
    """Copy a file into the cache under the name that the entry's copy has, whole or not at all.

    Raises:
        CheckpointError: the file cannot be read, or is no longer what its SHA-256 says.
        OutputError: the copy cannot be written.
    """
    target = stored_path(entry)
    make_folder(target.parent)
    if target.exists() and source.samefile(target):  # it was put there by hand
        record(target, digest)
        return target
    unrecord(target)
    hasher = hashlib.sha256()
    with atomic_output(target) as file:
        try:
            read = source.open("rb")
        except OSError as error:
            raise CheckpointError(f"{source}: cannot be read: {error.strerror}") from error
        with read:
            while block := read.read(_BLOCK):
                hasher.update(block)
                with writing(target):
                    file.write(block)
        if hasher.hexdigest() != digest:
            raise CheckpointError(f"{source}: changed while it was copied; try again")
    record(target, digest)
    return target


def make_folder(folder: Path) -> None:
    """Make a folder for models, with its parents.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
