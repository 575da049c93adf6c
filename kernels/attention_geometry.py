"""What tells one pattern of attention from another: which pixels meet, and with which bias.

Shape letters: B images, H rows, W columns, C channels, wh x ww a window of N = wh * ww queries,
kh x kw the grid of its M keys, T rows of the bias table.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from restore.kernels.windows import Size

SHORT = 128  # pixels of stripes that may be one tile, whose kernels are for their length


@dataclass(frozen=True)
class Geometry:
    """Constants that a kernel of attention is compiled for; all numbers, so that ops can pass them.

    Query a of the window whose first pixel, of the map rolled up and left by (sy, sx), is (top,
    left), is the pixel (top + a // ww, left + a % ww) of the rolled map. Key b is the pixel
    (top - hy + b // kw, left - hx + b % kw), or for cell = 2 the cell of a map of cells
    (top / 2 + b // kw, left / 2 + b % kw).
    """

    wh: int
    ww: int
    kh: int
    kw: int
    cell: int = 1  # rows and columns of pixels that are one key: 1 or 2
    hy: int = 0  # rows of keys above and below a window
    hx: int = 0
    sy: int = 0  # roll of the map
    sx: int = 0
    biased: int = 1  # 1: the logits have a bias from a table
    outward: int = 0  # 1: its rows go by offsets from query to key, 0: from key to query
    sorted: int = 0  # 1: the map is one row of tokens, read in an order that is given
    opened: int = 0  # of `open_for`; 1: a window has all rows of the map, 2: all columns

    @property
    def n(self) -> int:
        """N, queries of a window."""
        return self.wh * self.ww

    @property
    def m(self) -> int:
        """M, keys of a window."""
        return self.kh * self.kw

    @property
    def wide(self) -> int:
        """Rows of the table that differ in the column's offset alone."""
        return (self.ww if self.outward else self.kw) + self.kw - 1

    @property
    def rows(self) -> int:
        """T."""
        return ((self.wh if self.outward else self.kh) + self.kh - 1) * self.wide

    @property
    def wrapped(self) -> int:
        """How many rows from the end of the table on its first offset lies."""
        if not self.outward:
            return 0
        return ((self.wh + 2 * self.hy - 2) * self.wide + self.ww + 2 * self.hx - 2) % self.rows

    @property
    def halo(self) -> int:
        """1 if windows share keys, so that the gradients of a key come from several windows."""
        return int(self.hy + self.hx > 0)

    @property
    def shifted(self) -> int:
        """1 if windows at the end of the map hold pixels that must not see each other."""
        return int(self.sy + self.sx > 0)

    def open_for(self, height: int, width: int) -> Geometry:
        """What kernels are compiled for: without the length of stripes along a side of the map.

        That is the map's, so that maps of every size share kernels. The side is 0 here, `opened`
        tells which it is, and no property that depends on it holds.
        """
        if self.halo or self.cell > 1 or self.sorted or self.m <= SHORT:
            return self
        if self.wh == height and (self.wh >= self.ww or self.ww != width):
            return dataclasses.replace(self, wh=0, kh=0, opened=1)
        if self.ww == width:
            return dataclasses.replace(self, ww=0, kw=0, opened=2)
        return self

    def numbers(self) -> list[int]:
        """All fields, as `Geometry(*numbers)` takes them."""
        return list(dataclasses.astuple(self))

    def windows(self, images: int, height: int, width: int) -> int:
        """How many windows the maps have."""
        return images * (height // self.wh) * -(-width // self.ww)


WIDEST_HEAD = 128  # channels; more would not leave registers for the logits


def too_wide(head_dim: int) -> str | None:
    """Why the kernels cannot run heads of so many channels, or None if they can."""
    if head_dim > WIDEST_HEAD:
        return f"heads of {head_dim} channels; the kernels hold {WIDEST_HEAD}"
    return None


def of_windows(window_size: Size, shift: Size) -> Geometry:
    """See `window_attention.window_attention`."""
    wh, ww = window_size
    return Geometry(wh, ww, wh, ww, sy=shift[0], sx=shift[1])


def of_overlapping_windows(window_size: Size, halo: Size) -> Geometry:
    """See `overlapping_attention.overlapping_attention`."""
    (wh, ww), (hy, hx) = window_size, halo
    return Geometry(wh, ww, wh + 2 * hy, ww + 2 * hx, hy=hy, hx=hx, outward=1)


def of_permuted_windows(window_size: Size, shift: Size) -> Geometry:
    """See `permuted_attention.permuted_attention`."""
    wh, ww = window_size
    return Geometry(wh, ww, wh // 2, ww // 2, cell=2, sy=shift[0], sx=shift[1])


def of_groups(size: int) -> Geometry:
    """See `category_attention.category_attention`: groups of `size` tokens."""
    return Geometry(1, size, 1, size, biased=0, sorted=1)


@dataclass(frozen=True)
class Layout:
    """Where heads lie in the rows of channels of maps; in elements, from the pointers passed."""

    heads: int
    d: int  # channels of a head
    d0: int  # sizes of the pieces that hold them, see `triton_blocks.split`
    d1: int
    d2: int
    q_pixel: int  # from a pixel to the next one of its row, in the map of queries
    kv_pixel: int  # and in that of keys and values
    q: int  # first channel of the queries
    k: int  # of the keys
    v: int  # of the values
    joined: int = 1  # 1: one map holds all
    large: int = 0  # 1: numbers of elements of a map pass 2**31

    @property
    def channels(self) -> int:
        """C, of all heads."""
        return self.heads * self.d
