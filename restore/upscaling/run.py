"""One call's choices, checked, and the way of a picture through all stages.

Shape letters: H, W rows and columns of the input, s the model's scale, C channels (1 gray, 2 gray
and alpha, 3 RGB, 4 RGB and alpha).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from restore.errors import UsageError
from restore.image_io.row_files import RowSource
from restore.padding import Padding, check_padding
from restore.upscaling import memory
from restore.upscaling.alpha import AlphaWorker
from restore.upscaling.engine import Block, Blocks
from restore.upscaling.network import Network
from restore.upscaling.pixels import AnyArray
from restore.upscaling.progress import Tracker
from restore.upscaling.resize_rows import resized
from restore.upscaling.rows import whole_bands
from restore.upscaling.tiling import LEAST_TILE, read_side
from restore.upscaling.workers import PlainWorker, Worker

if TYPE_CHECKING:
    from restore.model import Model

TileChoice = int | Literal["auto"]

MOST_OUTSCALE = 1024  # beyond, sizes are mistakes, and overflow
_BATCHES = (8, 4, 2)  # tried on CUDA, largest first; a CPU gains nothing from a batch


class Run:
    """The checked choices of one call."""

    def __init__(
        self,
        model: Model,
        outscale: float | None,
        tile: TileChoice,
        tile_pad: int | None,
        tta: bool,
        tracker: Tracker,
        padding: Padding = "reflect",
        bounded: bool = True,
    ) -> None:
        if isinstance(model, (str, os.PathLike)):
            raise UsageError(f"model: is the path {model}; load it first with restore.load")
        if not hasattr(model, "rule") and not hasattr(model, "halo"):
            raise UsageError(
                f"model: is a {type(model).__name__}; expected what restore.load gives"
            )
        check_channels(model)
        self.model = model
        self.outscale = model.scale if outscale is None else checked_outscale(outscale)
        checked_tile(model, tile, tile_pad)
        check_padding(padding)
        if padding == "published" and tile not in ("auto", 0):
            raise UsageError(
                f'padding: "published" grows whole pictures, and tile is {tile}; leave out one'
            )
        self.tile: TileChoice = 0 if padding == "published" else tile
        self.padding = padding
        self.pad = model.halo if tile_pad is None else tile_pad
        self.tta = tta
        self.bounded = bounded
        self.tracker = tracker
        tracker.report.tile_pad = self.pad

    def blocks(self, source: RowSource, *, whole_rows: bool = False) -> Iterator[Block]:
        """The result, float32 in 0..1: first row, first column, pixels [n, m, C].

        Blocks come in rows from the top down, and in a row from left to right, equally high.

        Args:
            source: the picture.
            whole_rows: whoever takes the blocks collects them to whole rows, in the source's
                depth; in very wide pictures rows of tiles are lower then.
        """
        s = self.model.scale
        old = source.height * s, source.width * s
        new = output_size(source.height, source.width, self.outscale)
        per_row = s * old[1] * source.channels
        if new == old:
            held = per_row * source.dtype.itemsize if whole_rows else 0
            return _clipped(self._enlarged(source, held))
        bands = whole_bands(_clipped(self._enlarged(source, 4 * per_row)), old[1], source.channels)
        return _clipped((top, 0, rows) for top, rows in resized(bands, old, new))

    def rows(self, source: RowSource) -> Iterator[tuple[int, AnyArray]]:
        """The same from side to side, in the source's depth: first row, rows [n, W', C]."""
        width = output_size(source.height, source.width, self.outscale)[1]
        blocks = self.blocks(source, whole_rows=True)
        return whole_bands(blocks, width, source.channels, source.dtype)

    def _enlarged(self, source: RowSource, held: int) -> Iterator[Block]:
        has_alpha = source.channels in (2, 4)
        network = self._network(source.channels - has_alpha)
        worker: Worker = PlainWorker(network, bounded=self.bounded)
        if has_alpha:
            worker = AlphaWorker(network, self._network(1), source)
        free = memory.free_bytes(self.model.device)
        images = 3 if network.channels > self.model.in_channels else 1  # see Network
        if self.tile == "auto":
            tile = memory.choose_tile(
                self.model, source.height, source.width, free // images, tile_pad=self.pad
            )
        else:
            tile = self.tile
        batch = 1
        if self.model.device.type == "cuda" and tile:
            side = read_side(tile, self.pad, self.model.align)
            fits = (
                b
                for b in _BATCHES
                if memory.peak_bytes(self.model, side, side, b * images) <= free // 2
            )
            batch = next(fits, 1)
        blocks = Blocks(
            source,
            worker,
            tile=tile,
            tile_pad=self.pad,
            batch=batch,
            tracker=self.tracker,
            held=held,
        )
        return iter(blocks)

    def _network(self, channels: int) -> Network:
        return Network(
            self.model, channels, tta=self.tta, tracker=self.tracker, padding=self.padding
        )


def check_channels(model: Model) -> None:
    """UsageError unless the model makes gray pictures of gray ones or colour ones of colour."""
    taken, made = model.in_channels, model.out_channels
    if taken not in (1, 3) or made != taken:
        raise UsageError(
            f"{model.name}: makes {made} channels of {taken}; pictures have 1 (gray) or 3 (RGB), "
            "before and after. Such a network is called with tensors: restore.load(...)(x)"
        )


def output_size(height: int, width: int, outscale: float) -> tuple[int, int]:
    """Rows and columns of the result for a picture of height x width."""
    return max(1, round(height * outscale)), max(1, round(width * outscale))


def _clipped(blocks: Iterable[Block]) -> Iterator[Block]:
    for top, left, pixels in blocks:
        yield top, left, np.clip(pixels, 0, 1)


def checked_outscale(outscale: float) -> float:
    """The number itself; UsageError unless it is above 0 and at most MOST_OUTSCALE."""
    number = isinstance(outscale, (int, float, np.number)) and not isinstance(outscale, bool)
    if not number or not 0 < outscale <= MOST_OUTSCALE:
        raise UsageError(f"outscale: is {outscale!r}; expected above 0, at most {MOST_OUTSCALE}")
    return outscale


def checked_tile(model: Model, tile: TileChoice, tile_pad: int | None) -> None:
    """UsageError unless tiles of that size and halo can be had, and are worth computing."""
    if tile != "auto" and not _whole_number(tile):
        raise UsageError(f'tile: is {tile!r}; expected "auto", 0 (whole picture) or pixels')
    if tile_pad is not None and not _whole_number(tile_pad):
        raise UsageError(f"tile_pad: is {tile_pad!r}; expected None or pixels, 0 or more")
    pad = model.halo if tile_pad is None else tile_pad
    least = min(LEAST_TILE, max(pad, model.align))
    if tile != "auto" and 0 < tile < least:
        raise UsageError(
            f"tile: is {tile}; the least for {model.name} with a tile_pad of {pad} is {least} "
            f"pixels: of each tile {pad} more are read on every side, and the network works on "
            f"multiples of {model.align}, so that smaller tiles compute nearly nothing else. "
            '"auto" takes what the memory allows'
        )


def _whole_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        return False
    return int(value) >= 0
