"""One process at a time, on one machine, by a lock that goes with the process that held it."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from restore.atomic import writing

POLL = 0.2  # s between looks at a lock that another process holds
# file systems of some networks know no locks: then as if there were none
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, getattr(errno, "ENOTSUP", errno.ENOSYS)}


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Around what one process alone may do.

    Args:
        path: of a file that is made for it and removed after it.
        waiting: called once if another process holds it, before waiting for that to end.

    Raises:
        OutputError: the file cannot be made.
    """
    told = False
    while (descriptor := _taken(path)) is None:
        if not told:
            waiting()
            told = True
        time.sleep(POLL)
    try:
        yield
    finally:
        # while it is held: a file of this name made later is another's
        removed = _removed(path)
        os.close(descriptor)
        if not removed:  # Windows removes no open file
            _removed(path)


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _taken(path: Path) -> int | None:
    """The open file that holds the lock; None while another process does."""
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if _try_lock(descriptor) and _is_same(descriptor, path):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether the file still has its name: who held it before has removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return error.errno in _NO_LOCKS
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        return True
