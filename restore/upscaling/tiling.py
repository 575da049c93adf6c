"""How a picture is cut into tiles: regions and overlaps in input pixels, pure integers.

Along each axis the picture is cut into disjoint *cores* that cover it exactly once. A tile is
computed from its *read* region, the core with a halo, and joined to its neighbours inside that
halo (see `blend`). Three rules hold for every plan:

- Cores are at most `tile` long and, the first and last aside, equally long.
- A read region contains its core and `tile_pad` more pixels on each side, as far as the picture
  goes. It starts at a multiple of the alignment in force and ends at one, or at the picture's
  end: a network that works in windows of that size sees the same windows in a tile as in the
  whole picture. Borders between cores lie `tile_pad` beyond such a multiple, so that rounding
  enlarges one halo of a tile and not both; with an alignment of 192 that halves the work.
- All read regions of an axis are equally long, counted up to a multiple of the alignment (the
  last one may stop short at the picture's end). Tiles at the border read further inward instead
  of being smaller, so one shape, one batch and one attention mask serve a whole picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from restore.errors import UsageError

LEAST_TILE = 32  # input pixels; below it nearly everything that is computed is halo


@dataclass(frozen=True)
class Interval:
    """One tile along one axis, in input pixels; ends are exclusive."""

    start: int
    end: int
    read_start: int
    read_end: int

    @property
    def size(self) -> int:
        """Length of the core."""
        return self.end - self.start

    @property
    def read_size(self) -> int:
        """Length of the read region."""
        return self.read_end - self.read_start


@dataclass(frozen=True)
class Tile:
    """One tile: its rows and its columns."""

    row: Interval
    col: Interval


@dataclass(frozen=True)
class TilePlan:
    """The tiles of a picture, or of its rows from `first_row` down."""

    height: int
    width: int
    tile: int  # longest core allowed, a multiple of align; 0: the whole picture is one tile
    tile_pad: int
    align: int  # the alignment in force, see `alignment_in_force`
    first_row: int
    rows: tuple[Interval, ...]
    cols: tuple[Interval, ...]

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.cols)

    def __iter__(self) -> Iterator[Tile]:
        """Go through the tiles row by row, left to right."""
        for row in self.rows:
            for col in self.cols:
                yield Tile(row, col)


def alignment_in_force(tile: int, align: int) -> int:
    """The alignment a plan can keep with cores of at most `tile` pixels.

    It is `align` where a core can hold it. A smaller tile cannot start at multiples of `align`
    everywhere; it then keeps the largest divisor of `align` that divides the tile (their gcd), so
    tiles of 64 for a network with windows of 8, 16, 24 and 32 (align 96) still start at
    multiples of 32: only its windows of 24 lie otherwise than in the whole picture.
    """
    return align if tile == 0 or tile >= align else math.gcd(align, tile)


def plan(
    height: int,
    width: int,
    tile: int,
    tile_pad: int,
    align: int,
    *,
    first_row: int = 0,
    tallest: int | None = None,
) -> TilePlan:
    """Cut a picture into tiles.

    Args:
        height: rows of the picture, at least 1.
        width: columns of the picture, at least 1.
        tile: longest core along each axis in input pixels, rounded down to a multiple of the
            alignment in force; 0 makes one tile of the whole picture.
        tile_pad: least halo on each side of a core, where the picture has that many pixels.
        align: the network's alignment in input pixels, at least 1.
        first_row: plan only the rows from this one down: 0, or where a core of a plan with the
            same halo and a multiple of this alignment began. Read regions may still reach above
            it. For going on with smaller tiles.

    Raises:
        UsageError: a number is out of range; the message names it.
    """
    for name, value, least in (
        ("height", height, 1),
        ("width", width, 1),
        ("tile", tile, 0),
        ("tile_pad", tile_pad, 0),
        ("align", align, 1),
    ):
        if value < least:
            raise UsageError(f"tile plan: {name} is {value}; it must be at least {least}")
    step = alignment_in_force(tile, align)
    if first_row and not (0 < first_row < height and (first_row - tile_pad) % step == 0):
        raise UsageError(
            f"tile plan: first_row is {first_row}; it must be below {height} and lie {tile_pad} "
            f"beyond a multiple of {step}"
        )
    core = tile - tile % step
    tall = core
    if core and tallest is not None:
        tall = min(core, max(tallest, LEAST_TILE, step))
        tall -= tall % step
    return TilePlan(
        height=height,
        width=width,
        tile=core,
        tile_pad=tile_pad,
        align=step,
        first_row=first_row,
        rows=_cut(first_row, height, tall, tile_pad, step),
        cols=_cut(0, width, core, tile_pad, step),
    )


def _cut(first: int, length: int, core: int, pad: int, step: int) -> tuple[Interval, ...]:
    """Intervals over [first, length) of an axis; `core` is a multiple of `step`."""
    if first == 0 and (core == 0 or core >= length):
        return (Interval(0, length, 0, length),)
    grid = first or -(-pad % step)  # a place for a border; before the picture, or its edge
    span = length - grid
    # equal cores: a last tile of a few pixels would cost as much as a full one
    size = _round_up(-(-span // -(-span // core)), step)
    end = _round_up(length, step)  # of the axis, as the network pads it
    starts = range(grid, length, size)
    lows = [max(0, s - pad) for s in starts]
    highs = [min(end, _round_up(s + size + pad, step)) for s in starts]
    reach = max(high - low for low, high in zip(lows, highs, strict=True))
    intervals = []
    for start, low in zip(starts, lows, strict=True):
        low = min(low, end - reach)
        stop = min(length, start + size)
        intervals.append(Interval(max(0, start), stop, low, min(length, low + reach)))
    return tuple(intervals)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def read_side(tile: int, tile_pad: int, align: int) -> int:
    """The longest read region of a plan, in input pixels, for a picture without end."""
    step = alignment_in_force(tile, align)
    return _round_up(tile - tile % step + 2 * tile_pad, step)


def aligned_tile(wanted: int, align: int) -> int:
    """The best core length of at most `wanted` pixels.

    A multiple of `align` where one fits; else the largest divisor of `align` that is not below
    `LEAST_TILE`, so that most of the alignment is kept; else `wanted`.
    """
    if wanted >= align:
        return wanted - wanted % align
    divisors = [d for d in range(LEAST_TILE, wanted + 1) if align % d == 0]
    return divisors[-1] if divisors else wanted


def smaller_tile(longest: int, align: int) -> int | None:
    """The tile to try when cores of `longest` pixels do not fit into memory.

    About half, see `aligned_tile`; None where `longest` is `LEAST_TILE` or less.
    """
    if longest <= LEAST_TILE:
        return None
    return aligned_tile(max(longest // 2, LEAST_TILE), align)
