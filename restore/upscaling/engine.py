"""A network over a picture of any size: tile after tile, each joined to those above and left of it.

Tiles go from left to right in rows. What a tile has finished is handed on at once, as a block of
the result; kept are the columns that the next tile adds to, the rows that the tiles below add to,
and the rows of the input that a row of tiles reads, in the depth of the input. So memory holds a
few tiles and some bytes for each pixel of the width: never the picture, nor a row of tiles of the
result.

When memory runs out at the first tile of a row, the rows from its top on are planned anew with
smaller tiles. When it does so further right, that tile and the rest of its row are computed in
parts, and the rows below with smaller tiles. Blocks handed on stay, so nothing is lost and nothing
used twice.

Shape letters: H, W rows and columns of the input, s the scale, C channels.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from restore.errors import OutOfMemoryError
from restore.image_io.row_files import RowSource
from restore.upscaling.blend import axis_shares, half_overlap, split
from restore.upscaling.network import Floats, is_out_of_memory
from restore.upscaling.progress import Tracker
from restore.upscaling.tiling import Interval, Tile, TilePlan, plan, smaller_tile
from restore.upscaling.workers import Needed, Strip, Worker

# What a row of tiles may hold of whole rows; where the picture is so wide that it would hold more,
# its tiles are lower. 30,000 pixels of 8 bit RGB and tiles of 512 take 155 MB.
ROW_BYTES = 2**29
_COPIES = 3  # of the input's rows: as read, in the decoder, and one on the way between them

Block = tuple[int, int, Floats]  # first row, first column, and pixels [n, m, C]
T = TypeVar("T")


class Blocks:
    """The output of a network over a source; iterate once over (first row, first column, pixels).

    Args:
        source: as many channels as `worker` takes.
        worker: computes tiles.
        tile: longest core in input pixels, 0 for the whole picture.
        tile_pad: halo in input pixels.
        batch: most tiles of one row computed at once.
        tracker: is told of plans, tiles and shortages.
        held: bytes that whoever takes the blocks holds for each input row of a row of tiles.
    """

    def __init__(
        self,
        source: RowSource,
        worker: Worker,
        *,
        tile: int,
        tile_pad: int,
        batch: int,
        tracker: Tracker,
        held: int = 0,
    ) -> None:
        self._source = source
        self._worker = worker
        self._model = worker.network.model
        self._scale = self._model.scale
        self._pad = tile_pad
        self._batch = batch
        self._tracker = tracker
        self._tallest = tallest(source, tile_pad, held)
        self._pending = 0  # tiles announced and not yet computed
        self._parts = 0  # the tile of which the rest of a row is made, after a shortage in it
        self._plan_from(0, tile, self._model.align)

    def __iter__(self) -> Iterator[Block]:
        """Blocks [n, m, C] that cover the result, not clamped; raises what `upscale` does.

        They come in rows from the top down, and in a row from left to right, equally high. They
        begin and end at multiples of the scale.
        """
        s, source = self._scale, self._source
        shape = (source.width * s, source.channels)
        top = at = 0  # output row of the first row not yet handed on; row of tiles
        carry = np.zeros((0, *shape), np.float32)  # rows that the tiles below add to
        left = np.ones(0, np.float32)  # of their weight, what is not yet given
        while at < len(self._plan.rows):
            row, last = self._plan.rows[at], at == len(self._plan.rows) - 1
            end = row.end if last else min(row.end + self._half, source.height)
            bottom = max(end * s, top + len(carry))
            left_here = np.concatenate([left, np.ones(bottom - top - len(left), np.float32)])
            fade_at = bottom - top if last else (row.end - self._half) * s - top
            weights, left_after = split(left_here, fade_at, 2 * self._half * s)
            weights_differ = bool((weights != 1).any())
            kept = np.empty((bottom - top - fade_at, *shape), np.float32)
            strip = None  # the one before goes first
            strip = self._attempt(partial(self._read, row))
            right = 0
            for done in self._pieces(strip, row, top, bottom):
                x, right = right, right + done.shape[1]
                if weights_differ:
                    done = done * weights[:, None, None]
                    done[: len(carry)] += carry[:, x:right]
                kept[:, x:right] = done[fade_at:]
                if fade_at:
                    yield top, x, self._finished(done[:fade_at], top, x, strip)
            if not right:
                self._shrink(row.start)
                at = 0
                continue
            carry, left = kept, left_after[fade_at:]
            top += fade_at
            at += 1
            if self._parts and not last:
                self._plan_from(self._plan.rows[at].start, self._parts, self._plan.align)
                at = 0
            self._parts = 0

    def _read(self, row: Interval) -> Strip:
        first, end = self._worker.reach(row.read_start, row.read_end)
        return Strip(first, self._source.read(first, end))

    def _finished(self, block: Floats, top: int, left: int, strip: Strip | None) -> Floats:
        return block if strip is None else self._worker.finished(block, top, left, strip)

    def _pieces(
        self, strip: Strip | None, row: Interval, top: int, bottom: int
    ) -> Iterator[Floats]:
        """A row of tiles, blended side by side: pieces [bottom - top, m, C] from left to right.

        None where memory ran out (strip None) or runs out at the first tile.
        """
        if strip is None:
            return
        s, shares = self._scale, self._shares
        needed = [
            Needed(Tile(row, col), top, bottom, share.start, share.end)
            for col, share in zip(self._plan.cols, shares, strict=True)
        ]
        ends = [*(share.start for share in shares[1:]), self._source.width * s]
        edge: Floats | None = None  # columns of the tile before that this one adds to
        at = 0
        while at < len(needed):
            outputs = self._outputs(strip, self._next_batch(needed, at), may_stop=at == 0)
            if outputs is None:
                return
            while outputs:
                output, share, col = outputs.pop(0), shares[at], needed[at].tile.col
                x = share.start - col.read_start * s
                y = top - row.read_start * s
                piece = output[y : y + bottom - top, x : x + len(share.weights)]
                if (share.weights != 1).any():
                    piece = piece * share.weights[:, None]
                    if edge is not None:
                        piece[:, : edge.shape[1]] += edge
                ready = ends[at] - share.start
                edge = piece[:, ready:].copy()
                at += 1
                yield piece[:, :ready]

    def _next_batch(self, needed: Sequence[Needed], at: int) -> Sequence[Needed]:
        """The tiles from `at` on that are computed together: as many as may, of one size."""
        size = needed[at].tile.col.read_size
        end = at + 1
        while end < min(at + self._batch, len(needed)) and needed[end].tile.col.read_size == size:
            end += 1
        return needed[at:end]

    def _outputs(
        self, strip: Strip, tiles: Sequence[Needed], *, may_stop: bool
    ) -> list[Floats] | None:
        """The tiles' whole outputs [h * s, w * s, C]; None where memory ran out and `may_stop`."""
        if not self._parts:
            got = self._attempt(partial(self._worker.outputs, strip, tiles))
            if got is not None:
                self._count(len(tiles))
                return got
            if len(tiles) > 1:
                self._halve_batch()
                found = list[Floats]()
                for at in range(0, len(tiles), self._batch):
                    half = tiles[at : at + self._batch]
                    more = self._outputs(strip, half, may_stop=may_stop)
                    if more is None:
                        return None
                    found += more
                return found
            if may_stop:
                return None
            self._parts = self._smaller_tile()
        outputs = [self._in_parts(strip, need) for need in tiles]
        self._count(len(tiles))
        return outputs

    def _in_parts(self, strip: Strip, whole: Needed) -> Floats:
        """A tile's output made of smaller tiles."""
        s, (row, col) = self._scale, (whole.tile.row, whole.tile.col)
        p = plan(row.read_size, col.read_size, self._parts, self._pad, self._plan.align)
        down, across = (
            axis_shares(axis, half_overlap(axis, self._pad), s) for axis in (p.rows, p.cols)
        )
        out = np.zeros((row.read_size * s, col.read_size * s, self._source.channels), np.float32)
        for r, tall in zip(p.rows, down, strict=True):
            for c, wide in zip(p.cols, across, strict=True):
                y, x = row.read_start * s, col.read_start * s
                tile = Tile(_moved(r, row.read_start), _moved(c, col.read_start))
                need = Needed(tile, y + tall.start, y + tall.end, x + wide.start, x + wide.end)
                got = self._attempt(partial(self._worker.outputs, strip, [need]))
                if got is None:
                    self._parts = self._smaller_tile(max(r.size, c.size))
                    got = [self._in_parts(strip, need)]
                y, x = tall.start - r.read_start * s, wide.start - c.read_start * s
                part = got[0][y : y + len(tall.weights), x : x + len(wide.weights)]
                weights = tall.weights[:, None] * wide.weights
                out[tall.start : tall.end, wide.start : wide.end] += part * weights[:, :, None]
        return out

    def _plan_from(self, first_row: int, tile: int, align: int) -> None:
        """Plan the rows from `first_row` down, and announce the tiles."""
        p = plan(
            self._source.height,
            self._source.width,
            tile,
            self._pad,
            align,
            first_row=first_row,
            tallest=self._tallest,
        )
        self._plan: TilePlan = p
        self._half = half_overlap(p.rows, self._pad)
        self._shares = axis_shares(p.cols, half_overlap(p.cols, self._pad), self._scale)
        self._tracker.expect(len(p) - self._pending)
        self._pending = len(p)
        self._tracker.report.tile = p.tile

    def _attempt(self, compute: Callable[[], T]) -> T | None:
        """What `compute` returns, or None where memory ran out."""
        try:
            return compute()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # here, where no frame of the failed call holds tensors any more
        gc.collect()
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _halve_batch(self) -> None:
        self._batch //= 2
        self._tracker.ran_out(f"out of memory; going on with batches of {self._batch}")

    def _shrink(self, first_row: int) -> None:
        """Go on from `first_row` with smaller tiles."""
        self._plan_from(first_row, self._smaller_tile(), self._plan.align)

    def _smaller_tile(self, longest: int | None = None) -> int:
        """The tile to go on with where one of `longest` pixels (None: the plan's) was too large.

        Raises:
            OutOfMemoryError: there is none.
        """
        model, p = self._model, self._plan
        longest = longest or max(interval.size for interval in (*p.rows, *p.cols))
        if self._worker.network.padding == "published":
            raise OutOfMemoryError(
                f"{model.name}: {model.device} has no room for the whole picture, which published "
                "padding wants; choose padding 'reflect', which allows tiles, half precision or "
                "another device"
            )
        tile = smaller_tile(longest, p.align)
        if tile is None:
            raise OutOfMemoryError(
                f"{model.name}: {model.device} has no room for a tile of {longest} pixels and a "
                f"halo of {self._pad} on each side; close other programs, choose a smaller "
                "tile_pad, half precision or another device"
            )
        self._tracker.ran_out(f"out of memory; going on with tiles of {tile} pixels")
        return tile

    def _count(self, tiles: int) -> None:
        self._pending -= tiles
        self._tracker.finished(tiles)


def tallest(source: RowSource, tile_pad: int, held: int = 0) -> int:
    """The longest core along the rows that keeps a row of tiles within `ROW_BYTES`.

    Args:
        source: the picture.
        tile_pad: see `Blocks`.
        held: see `Blocks`.
    """
    own = _COPIES * source.width * source.channels * source.dtype.itemsize
    return max(1, (ROW_BYTES - 2 * tile_pad * own) // (own + held))


def _moved(interval: Interval, by: int) -> Interval:
    return Interval(
        interval.start + by, interval.end + by, interval.read_start + by, interval.read_end + by
    )
