"""A network over a picture of any height: band after band of tiles, each joined to the last.

A band is one row of tiles. Its tiles are blended side by side; the band is then blended with the
one above, and the rows that no later band reaches are handed on. Memory holds one band, never
the picture. When memory runs out, the band under way is dropped and the rows from its top on are
planned anew with smaller tiles; rows handed on stay, so nothing is lost and nothing used twice.

Shape letters: H, W rows and columns of the input, s the scale, C channels.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch

from restore.errors import OutOfMemoryError
from restore.upscaling.blend import Share, axis_shares, half_overlap, split
from restore.upscaling.network import Floats, Network, is_out_of_memory
from restore.upscaling.pixels import AnyArray, to_unit
from restore.upscaling.progress import Tracker
from restore.upscaling.tiling import Interval, Tile, TilePlan, plan, smaller_tile

FLAT_MARGIN = 2  # input pixels; the neighbourhood that `_alpha` clamps to

Band = tuple[int, Floats]  # first row, and rows [n, W, C]


class RowSource(Protocol):
    """Where a picture comes from, a few rows at a time. A row may be asked for more than once."""

    @property
    def height(self) -> int:
        """Rows."""
        ...

    @property
    def width(self) -> int:
        """Columns."""
        ...

    @property
    def channels(self) -> int:
        """1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha (not premultiplied)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what `read` returns: uint8, uint16, or a float, then with values in 0..1."""
        ...

    def read(self, y0: int, y1: int) -> AnyArray:
        """Rows y0 .. y1 - 1, [y1 - y0, W, C]."""
        ...


class Bands:
    """The output of a network over a source; iterate once over (first row, rows).

    Args:
        source: 1 or 3 channels, as many as `network` was made for.
        network: takes the tiles.
        tile: longest core in input pixels, 0 for the whole picture.
        tile_pad: halo in input pixels.
        batch: most tiles of one row computed at once.
        tracker: is told of plans, tiles and shortages.
        copy_flat: where all of a tile's input is one value, hand on that value without a
            network; for alpha, whose output is clamped to its input's neighbourhood anyway.
        bounded: see `to_unit`.
    """

    def __init__(
        self,
        source: RowSource,
        network: Network,
        *,
        tile: int,
        tile_pad: int,
        batch: int,
        tracker: Tracker,
        copy_flat: bool = False,
        bounded: bool = True,
    ) -> None:
        self._source = source
        self._network = network
        self._scale = network.model.scale
        self._pad = tile_pad
        self._batch = batch
        self._tracker = tracker
        self._copy_flat = copy_flat
        self._bounded = bounded
        self._pending = 0  # tiles announced and not yet computed
        self._plan_from(0, tile, network.model.align)

    def __iter__(self) -> Iterator[Band]:
        """Rows [n, W * s, C] from the top down, not clamped; raises what `upscale` does."""
        s = self._scale
        top = 0  # output row of the first row not yet handed on
        carry = np.zeros((0, self._source.width * s, self._source.channels), np.float32)
        left = np.ones(0, np.float32)  # of the carried rows' weight, what is not yet given
        at = 0
        while at < len(self._plan.rows):
            row = self._plan.rows[at]
            last = at == len(self._plan.rows) - 1
            end = row.end if last else min(row.end + self._half, self._source.height)
            bottom = max(end * s, top + len(carry))
            band = self._try_band(row, top, bottom)
            if band is None:
                self._make_smaller(row.start)
                at = 0
                continue
            left = np.concatenate([left, np.ones(len(band) - len(left), np.float32)])
            fade_at = len(band) if last else (row.end - self._half) * s - top
            weights, left = split(left, fade_at, 2 * self._half * s)
            if (weights != 1).any():
                band *= weights[:, None, None]
            band[: len(carry)] += carry
            carry, left = band[fade_at:].copy(), left[fade_at:]
            yield top, band[:fade_at]
            top += fade_at
            at += 1

    def _plan_from(self, first_row: int, tile: int, align: int) -> None:
        """Plan the rows from `first_row` down, and announce the tiles."""
        source = self._source
        p = plan(source.height, source.width, tile, self._pad, align, first_row=first_row)
        self._plan: TilePlan = p
        self._half = half_overlap(p.rows, self._pad)
        self._shares = axis_shares(p.cols, half_overlap(p.cols, self._pad), self._scale)
        self._tracker.expect(len(p) - self._pending)
        self._pending = len(p)
        self._tracker.report.tile = p.tile

    def _make_smaller(self, first_row: int) -> None:
        """Go on from `first_row` with half the batch, or else with smaller tiles."""
        model, p = self._network.model, self._plan
        # dropped here, where no frame of the failed call holds tensors any more
        gc.collect()
        if model.device.type == "cuda":
            torch.cuda.empty_cache()
        if self._batch > 1:
            self._batch //= 2
            self._tracker.ran_out(f"out of memory; going on with batches of {self._batch}")
            self._plan_from(first_row, p.tile, p.align)
            return
        longest = max(interval.size for interval in (*p.rows, *p.cols))
        if self._network.padding == "published":
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
        self._plan_from(first_row, tile, p.align)

    def _try_band(self, row: Interval, top: int, bottom: int) -> Floats | None:
        """`_band`, or None where memory ran out."""
        try:
            return self._band(row, top, bottom)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _band(self, row: Interval, top: int, bottom: int) -> Floats:
        """One row of tiles blended side by side: output rows top .. bottom - 1, [n, W * s, C]."""
        s, source = self._scale, self._source
        read = source.read(row.read_start, row.read_end)
        what = f"rows {row.read_start}..{row.read_end - 1}"
        rows = to_unit(read, what, bounded=self._bounded)  # [h, W, C]
        band = np.zeros((bottom - top, source.width * s, source.channels), np.float32)
        inside = slice(top - row.read_start * s, bottom - row.read_start * s)
        waiting: list[tuple[Interval, Share]] = []
        for col, share in zip(self._plan.cols, self._shares, strict=True):
            flat = self._flat_value(rows, inside, share) if self._copy_flat else None
            if flat is not None:
                band[:, share.start : share.end] += flat * share.weights[:, None]
                self._count(1)
                continue
            if waiting and waiting[0][0].read_size != col.read_size:
                self._run(rows, row, waiting, inside, band)
                waiting = []
            waiting.append((col, share))
            if len(waiting) == self._batch:
                self._run(rows, row, waiting, inside, band)
                waiting = []
        if waiting:
            self._run(rows, row, waiting, inside, band)
        return band

    def _run(
        self,
        rows: Floats,
        row: Interval,
        tiles: list[tuple[Interval, Share]],
        inside: slice,
        band: Floats,
    ) -> None:
        """Compute tiles of one shape and add them to the band under their column weights."""
        s = self._scale
        batch = np.stack([rows[:, col.read_start : col.read_end] for col, _ in tiles])
        outputs = self._network(batch, [_name(Tile(row, col)) for col, _ in tiles])
        for (col, share), output in zip(tiles, outputs, strict=True):
            first = col.read_start * s
            piece = output[inside, share.start - first : share.end - first]
            if (share.weights != 1).any():
                piece = piece * share.weights[:, None]
            band[:, share.start : share.end] += piece
        self._count(len(tiles))

    def _flat_value(self, rows: Floats, inside: slice, share: Share) -> Floats | None:
        """The pixel [C] that all input around a tile's output equals, or None.

        Around is FLAT_MARGIN pixels, or the halo where that is narrower.
        """
        s = self._scale
        y0, y1 = inside.start // s - FLAT_MARGIN, -(-inside.stop // s) + FLAT_MARGIN
        x0, x1 = share.start // s - FLAT_MARGIN, -(-share.end // s) + FLAT_MARGIN
        region = rows[max(0, y0) : y1, max(0, x0) : x1]
        value: Floats = region[0, 0]
        return value if (region == value).all() else None

    def _count(self, tiles: int) -> None:
        self._pending -= tiles
        self._tracker.finished(tiles)


def _name(tile: Tile) -> str:
    """For messages; the first row and column are 0."""
    row, col = tile.row, tile.col
    return f"the tile at rows {row.start}..{row.end - 1}, columns {col.start}..{col.end - 1}"
