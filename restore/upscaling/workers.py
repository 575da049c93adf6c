"""What computes tiles: their pixels out of rows of a source, through a network.

Shape letters: H, W rows and columns of the input, s the scale, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from restore.upscaling.network import Floats, Network
from restore.upscaling.pixels import AnyArray, to_unit
from restore.upscaling.tiling import Tile


@dataclass(frozen=True)
class Strip:
    """Rows of a source, in its depth."""

    first: int  # number of the first
    pixels: AnyArray  # [n, W, C]

    def part(self, y0: int, y1: int, x0: int, x1: int) -> AnyArray:
        """Rows y0 .. y1 - 1 and columns x0 .. x1 - 1 of the source."""
        return self.pixels[y0 - self.first : y1 - self.first, x0:x1]


@dataclass(frozen=True)
class Needed:
    """A tile, and the part of its output that goes into the result, in output pixels."""

    tile: Tile
    y0: int
    y1: int
    x0: int
    x1: int


class Worker(Protocol):
    """What makes the outputs of tiles: a network, or two for pictures with alpha."""

    @property
    def network(self) -> Network:
        """The network; of two, that of the colours."""
        ...

    def reach(self, y0: int, y1: int) -> tuple[int, int]:
        """First and end of the rows of the source that tiles which read y0 .. y1 - 1 want."""
        ...

    def outputs(self, strip: Strip, tiles: Sequence[Needed]) -> list[Floats]:
        """The whole outputs [h * s, w * s, C] of tiles of one size, not clamped."""
        ...

    def finished(self, block: Floats, top: int, left: int, strip: Strip) -> Floats:
        """A blended block [n, m, C], whose first output pixel is (top, left), made ready."""
        ...


class PlainWorker:
    """Pictures without alpha through one network.

    Args:
        network: made for as many channels as the picture has.
        bounded: see `to_unit`.
    """

    def __init__(self, network: Network, *, bounded: bool = True) -> None:
        self.network = network
        self._bounded = bounded

    def reach(self, y0: int, y1: int) -> tuple[int, int]:
        """The rows themselves."""
        return y0, y1

    def outputs(self, strip: Strip, tiles: Sequence[Needed]) -> list[Floats]:
        """See `Worker`."""
        parts = []
        for need in tiles:
            row, col = need.tile.row, need.tile.col
            pixels = strip.part(row.read_start, row.read_end, col.read_start, col.read_end)
            parts.append(to_unit(pixels, rows_name(need.tile), bounded=self._bounded))
        return list(self.network(np.stack(parts), [tile_name(need.tile) for need in tiles]))

    def finished(self, block: Floats, top: int, left: int, strip: Strip) -> Floats:
        """The block itself."""
        return block


def tile_name(tile: Tile) -> str:
    """For messages; the first row and column are 0."""
    row, col = tile.row, tile.col
    return f"the tile at rows {row.start}..{row.end - 1}, columns {col.start}..{col.end - 1}"


def rows_name(tile: Tile) -> str:
    """For messages: the rows that it reads."""
    return f"rows {tile.row.read_start}..{tile.row.read_end - 1}"
