"""A picture that arrives in blocks, cut into tiles of one size, with smaller levels on request.

Shape letters: H, W rows and columns, C samples of a pixel, n, m those of a block.
"""

from __future__ import annotations

import abc
import contextlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from restore.errors import OutputError
from restore.image_io.picture import Array
from restore.image_io.sinks import NOTHING, Carried, Raster, Sink
from restore.image_io.source import PathLike

_IN_FLIGHT = 8  # tiles packed and not yet written; bounds the memory

Place = tuple[int, int, int]  # level, row and column of a tile


class TileSink(Sink):
    """Takes blocks or rows, and hands on whole tiles.

    Kept in memory are the tiles that are begun and not full: with blocks from the top down and
    from left to right, at most a row of them.

    Args, beside those of `Sink`:
        tile: side of a tile.
        pyramid: also make levels of half the size each, down to one of a single tile.

    Attributes:
        sizes: (height, width) of each level, the picture itself first.
        on_level_tile: is called with the tiles done and the tiles in all while levels are made.
    """

    def __init__(
        self,
        path: PathLike,
        raster: Raster,
        carried: Carried = NOTHING,
        *,
        tile: int,
        pyramid: bool,
    ) -> None:
        super().__init__(path, raster, carried)
        self.tile = tile
        self.sizes = [(self.height, self.width)]
        if pyramid:
            self.sizes = level_sizes(self.height, self.width, tile)
        self.on_level_tile: Callable[[int, int], None] | None = None
        self._begun: dict[tuple[int, int], tuple[Array, int]] = {}  # samples, pixels still missing
        self._missing = self.height * self.width
        self._rows = 0  # that `write` has taken
        self._queue: deque[tuple[Place, Future[Any]]] = deque()
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))

    def write(self, rows: Array) -> None:
        """Append [n, W, C] rows below those written before."""
        self.write_block(self._rows, 0, rows)
        self._rows += len(rows)

    def write_block(self, top: int, left: int, pixels: Array) -> None:
        """Take [n, m, C] pixels of the sink's dtype that lie at that row and column, each once.

        Raises:
            ValueError: they do not fit.
        """
        n, m = pixels.shape[:2]
        fits = top >= 0 <= left and top + n <= self.height and left + m <= self.width
        if not fits or pixels.shape[2:] != (self.channels,) or pixels.dtype != self.dtype:
            raise ValueError(
                f"block is {pixels.shape} {pixels.dtype} at row {top}, column {left}; expected "
                f"[n, m, {self.channels}] {self.dtype} within {self.height} x {self.width}"
            )
        t = self.tile
        for row in range(top // t, -(-(top + n) // t)):
            for col in range(left // t, -(-(left + m) // t)):
                y0, y1 = max(top, row * t), min(top + n, row * t + t)
                x0, x1 = max(left, col * t), min(left + m, col * t + t)
                self._take(row, col, y0, x0, pixels[y0 - top : y1 - top, x0 - left : x1 - left])
        self._missing -= n * m

    def _take(self, row: int, col: int, y: int, x: int, part: Array) -> None:
        """A part of one tile, whose first pixel is (y, x)."""
        tall, wide = self._tile_size(0, row, col)
        if part.shape[:2] == (tall, wide):
            self._emit((0, row, col), part)
            return
        empty = np.empty((tall, wide, self.channels), self.dtype), tall * wide
        samples, missing = self._begun.pop((row, col), None) or empty
        y, x = y - row * self.tile, x - col * self.tile
        samples[y : y + part.shape[0], x : x + part.shape[1]] = part
        missing -= part.shape[0] * part.shape[1]
        if missing:
            self._begun[row, col] = samples, missing
        else:
            self._emit((0, row, col), samples)

    def _begin(self, stack: contextlib.ExitStack) -> None:
        self._open(stack)
        stack.enter_context(self._pool)

    def _complete(self) -> None:
        if self._missing:
            raise OutputError(
                f"{self.path}: {self._missing} of {self.height * self.width} pixels never came; "
                "nothing is kept"
            )
        self._finish_levels()
        self._end()

    def _finish_levels(self) -> None:
        """Store what is packed, and make the smaller levels, each of the one before."""
        self._drain(0)
        grids = [self._grid(level) for level in range(len(self.sizes))]
        total, done = sum(down * across for down, across in grids[1:]), 0
        for level, (down, across) in enumerate(grids[1:], 1):
            for row in range(down):
                for col in range(across):
                    self._emit((level, row, col), halved(self._four(level - 1, row, col)))
                    done += 1
                    if self.on_level_tile is not None:
                        self.on_level_tile(done, total)
            self._drain(0)

    def _four(self, level: int, row: int, col: int) -> Array:
        """The up to four tiles of a level that lie under a tile of the next."""
        down, across = self._grid(level)
        rows = range(2 * row, min(2 * row + 2, down))
        cols = range(2 * col, min(2 * col + 2, across))
        got = [np.concatenate([self._load((level, r, c)) for c in cols], axis=1) for r in rows]
        return np.concatenate(got)

    def _emit(self, place: Place, samples: Array) -> None:
        # packers leave Python's lock, so tiles are packed side by side
        self._queue.append((place, self._pool.submit(self._packed, samples)))
        self._drain(_IN_FLIGHT)

    def _drain(self, most: int) -> None:
        while len(self._queue) > most:
            place, packed = self._queue.popleft()
            self._store(place, packed.result())

    def _grid(self, level: int) -> tuple[int, int]:
        """Rows and columns of a level's tiles."""
        height, width = self.sizes[level]
        return -(-height // self.tile), -(-width // self.tile)

    def _tile_size(self, level: int, row: int, col: int) -> tuple[int, int]:
        """Of a tile, as far as the picture goes."""
        height, width = self.sizes[level]
        return min(self.tile, height - row * self.tile), min(self.tile, width - col * self.tile)

    @abc.abstractmethod
    def _open(self, stack: contextlib.ExitStack) -> None:
        """Create what tiles are stored in."""

    @abc.abstractmethod
    def _end(self) -> None:
        """Write what stands behind the tiles."""

    @abc.abstractmethod
    def _packed(self, samples: Array) -> Any:
        """What `_store` takes for a tile [h, w, C]; runs in other threads."""

    @abc.abstractmethod
    def _store(self, place: Place, packed: Any) -> None:
        """Write a tile."""

    @abc.abstractmethod
    def _load(self, place: Place) -> Array:
        """Read a tile [h, w, C] that was stored."""


def level_sizes(height: int, width: int, tile: int) -> list[tuple[int, int]]:
    """Sizes of a pyramid's levels: each half of the one before, rounded up, the last one tile."""
    sizes = [(height, width)]
    while max(sizes[-1]) > tile:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


def halved(samples: Array) -> Array:
    """[n, m, C] to [ceil(n / 2), ceil(m / 2), C]: means of 2 x 2 pixels, rounded.

    Colours are weighted by alpha where there is one; the edge counts twice where a side is odd.
    """
    odd = ((0, samples.shape[0] % 2), (0, samples.shape[1] % 2), (0, 0))
    wide = np.pad(samples, odd, mode="edge")
    wide = wide.astype(np.float64 if samples.dtype.kind == "f" else np.uint64)
    if samples.shape[2] in (2, 4):
        alpha = wide[:, :, -1:]
        total = _sum_of_four(alpha)
        weighted = _sum_of_four(wide[:, :, :-1] * alpha)
        plain = _sum_of_four(wide[:, :, :-1])
        seen = np.maximum(total, 1) if samples.dtype.kind == "u" else np.where(total > 0, total, 1)
        colours = np.where(
            total > 0, _divided(weighted, seen), _divided(plain, np.full_like(total, 4))
        )
        means = np.concatenate([colours, _divided(total, np.full_like(total, 4))], axis=2)
    else:
        means = _divided(_sum_of_four(wide), np.array(4, wide.dtype))
    return means.astype(samples.dtype)


def _sum_of_four(wide: Array) -> Array:
    total: Array = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
    return total


def _divided(total: Array, by: Array) -> Array:
    """The quotient; of whole numbers rounded to nearest, halves up."""
    quotient: Array = total / by if total.dtype.kind == "f" else (total + by // 2) // by
    return quotient
