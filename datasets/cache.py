"""Decoded pictures in memory that all reading processes share, within a fixed number of bytes.

The memory is one anonymous mapping made before the processes fork: what one of them decodes the
others find, and pages that nothing was written to take no memory. Nothing is ever thrown out: when
the bytes are used up, further pictures are decoded each time. Where processes do not fork, each has
a smaller cache of its own.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from restore.errors import UsageError

Array = NDArray[Any]

_DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))
_STATE, _OFFSET, _ROWS, _COLUMNS, _CHANNELS, _KIND = range(6)
_ABSENT, _COMING, _THERE = 0, 1, 2
_ALIGN = 64


# how reading processes start; macOS has fork too, but its libraries do not survive it
START_METHOD: Literal["fork", "spawn"] = "fork" if sys.platform == "linux" else "spawn"


class PictureCache:
    """Pictures by number, [H, W, C] of uint8, uint16 or float32.

    Args:
        slots: how many numbers there are.
        limit: bytes that the pictures take at most; 0 keeps nothing.
    """

    def __init__(self, slots: int, limit: int) -> None:
        self._slots, self._limit = slots, max(0, limit)
        self._open()

    def _open(self) -> None:
        self._lock = multiprocessing.get_context(START_METHOD).Lock()
        head = 8 * (1 + 6 * self._slots)
        self._start = -(-head // _ALIGN) * _ALIGN
        try:
            self._memory = mmap.mmap(-1, self._start + max(1, self._limit))
        except OSError as error:
            raise UsageError(
                f"a cache of {self._limit / 2**30:.1f} GiB for decoded pictures cannot be had: "
                f"{error.strerror}; lower cache_gb"
            ) from error
        numbers = np.frombuffer(self._memory, np.int64, 1 + 6 * self._slots)
        self._used, self._table = numbers[:1], numbers[1:].reshape(self._slots, 6)
        self._known: dict[int, Array] = {}

    def __getstate__(self) -> tuple[int, int]:
        # for a process that did not fork: an empty one, so small that one for each core fits
        return self._slots, self._limit // (os.cpu_count() or 1)

    def __setstate__(self, state: tuple[int, int]) -> None:
        self._slots, self._limit = state
        self._open()

    @property
    def used(self) -> int:
        """Bytes taken so far, over all processes."""
        return int(self._used[0])

    @property
    def limit(self) -> int:
        """Bytes that are taken at most."""
        return self._limit

    def find(self, slot: int) -> Array | None:
        """The picture of that number, not to be written to; None if it is not here (yet)."""
        known = self._known.get(slot)
        if known is None:
            with self._lock:  # so that another process's writes are seen in their order
                if self._table[slot, _STATE] == _THERE:
                    known = self._known[slot] = self._view(slot)
        return known

    def fetch(self, slot: int, make: Callable[[], Array]) -> Array:
        """The picture of that number, made and kept where it is not here and there is room."""
        found = self.find(slot)
        if found is not None:
            return found
        picture = make()
        if self._reserve(slot, picture):
            self._view(slot, writable=True)[:] = picture
            with self._lock:
                self._table[slot, _STATE] = _THERE
            picture = self._known[slot] = self._view(slot)
        return picture

    def has_room(self, size: int) -> bool:
        """Whether a picture of so many bytes would be kept."""
        return self.used + size <= self._limit

    def _reserve(self, slot: int, picture: Array) -> bool:
        size = -(-picture.nbytes // _ALIGN) * _ALIGN
        with self._lock:
            row = self._table[slot]
            if row[_STATE] != _ABSENT or not self.has_room(size):
                return False
            row[:] = (_COMING, self.used, *picture.shape, _DTYPES.index(picture.dtype))
            self._used += size
        return True

    def _view(self, slot: int, writable: bool = False) -> Array:
        _, offset, rows, columns, channels, kind = (int(n) for n in self._table[slot])
        dtype, count = _DTYPES[kind], rows * columns * channels
        flat = np.frombuffer(self._memory, dtype, count, self._start + offset)
        view = flat.reshape(rows, columns, channels)
        view.flags.writeable = writable
        return view
