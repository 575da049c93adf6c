"""Windows as the native kernels see them: their pixels, labels and where biases lie."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from restore.kernels import native_calls
from restore.kernels.native_library import WIDEST_PANEL
from restore.kernels.windows import Size, shift_labels


class Grid(NamedTuple):
    """The pixels of a window. N of them."""

    y: Tensor  # [N] int32
    x: Tensor  # [N] int32
    step: Size  # rows and columns from one window to the next
    shift: Size = (0, 0)
    halo: bool = False  # whether pixels outside of the map are 0
    labels: Tensor | None = None  # [4, N padded] int32; None without a shift

    @property
    def argument(self) -> native_calls.Grid:
        """For a call of the library; valid as long as this is."""
        return native_calls.Grid(
            self.y.numel(),
            self.y.data_ptr(),
            self.x.data_ptr(),
            *self.step,
            *self.shift,
            self.halo,
            0 if self.labels is None else self.labels.data_ptr(),
            0 if self.labels is None else self.labels.stride(0),
        )


class Layout(NamedTuple):
    """What windows of some sides have in common.

    Queries and keys are counted along two axes, one slow and one fast. The biases of a head lie as
    [key on the fast axis, offset on the slow one, query on the fast one], so that those of all
    queries with one key are adjacent.
    """

    query: Grid
    key: Grid
    rows: Tensor  # [biases of a head] int64, rows of the table
    key_at: Tensor  # [keys] int32, where those of a key begin


@functools.lru_cache(64)
def layout(window_size: Size, shift: Size) -> Layout:
    """Windows whose pixels attend to each other."""
    wh, ww = window_size
    # the long side is the slow one: there are as many biases as with pairs on the fast side
    upright = wh >= ww
    slow, fast = _pairs(max(wh, ww), min(wh, ww))
    y, x = (slow, fast) if upright else (fast, slow)
    labels = _labels(y, x, window_size, shift) if any(shift) else None
    grid = Grid(y.int(), x.int(), window_size, shift, labels=labels)
    long, short = max(wh, ww), min(wh, ww)
    key, offset, query = _biases(short, 2 * long - 1, short)
    near = query - key + short - 1
    rows = offset * (2 * ww - 1) + near if upright else near * (2 * ww - 1) + offset
    return Layout(grid, grid, rows.flatten(), _key_at(slow, fast, long, short))


@functools.lru_cache(64)
def row_by_row(window_size: Size) -> Grid:
    """Windows without a shift whose pixels are counted row by row."""
    y, x = _pairs(*window_size)
    return Grid(y.int(), x.int(), window_size)


@functools.lru_cache(64)
def permuted_layout(window_size: Size, shift: Size) -> Layout:
    """Windows whose pixels attend to cells of 2 x 2 pixels, of a map of cells that is rolled."""
    wh, ww = window_size
    cells = (wh // 2, ww // 2)
    (y, x), (cell_y, cell_x) = _pairs(wh, ww), _pairs(*cells)
    labels = cell_labels = None
    if any(shift):
        labels = _labels(y, x, window_size, shift)
        cell_labels = _labels(cell_y, cell_x, cells, ((shift[0] + 1) // 2, (shift[1] + 1) // 2))
    query = Grid(y.int(), x.int(), window_size, shift, labels=labels)
    key = Grid(cell_y.int(), cell_x.int(), cells, labels=cell_labels)
    column, offset, place = _biases(cells[1], 2 * wh - 2, ww)
    rows = offset // 2 * (ww - 1) + place // 2 - column + cells[1] - 1
    key_at = _key_at(cell_y, cell_x, cells[0], ww, step=2, offsets=2 * wh - 2)
    return Layout(query, key, rows.flatten(), key_at)


@functools.lru_cache(64)
def overlapping_layout(window_size: Size, halo: Size) -> Layout:
    """Windows whose pixels attend to those of a larger window around it."""
    (wh, ww), (hh, hw) = window_size, halo
    high, wide = wh + 2 * hh, ww + 2 * hw
    (y, x), (key_y, key_x) = _pairs(wh, ww), _pairs(high, wide)
    query = Grid(y.int(), x.int(), window_size)
    key = Grid((key_y - hh).int(), (key_x - hw).int(), window_size, halo=True)
    column, offset, place = _biases(wide, wh + high - 1, ww)
    across = wide + ww - 1
    rows = (high - 1 - offset - 2 * hh + 1) * across + column - place - 2 * hw + 1
    rows = rows.flatten() % ((wh + high - 1) * across)
    return Layout(query, key, rows, _key_at(key_y, key_x, high, ww, offsets=wh + high - 1))


def _pairs(slow: int, fast: int) -> tuple[Tensor, Tensor]:
    """Both coordinates of all places: [slow * fast] int64 each."""
    return _counted(slow).repeat_interleave(fast), _counted(fast).repeat(slow)


def _counted(n: int) -> Tensor:
    """0 to n - 1 on the CPU, whatever device is the default: what is cached serves every call."""
    return torch.arange(n, device="cpu")


def _biases(keys: int, offsets: int, queries: int) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates of a head's biases: [keys, 1, 1], [offsets, 1] and [queries] int64."""
    key, offset, query = _counted(keys), _counted(offsets), _counted(queries)
    return key[:, None, None], offset[:, None], query


def _key_at(
    slow: Tensor,
    fast: Tensor,
    keys: int,
    queries: int,
    *,
    step: int = 1,
    offsets: int | None = None,
) -> Tensor:
    """Where the biases of each key begin: [keys] int32.

    Args:
        slow: of each key.
        fast: of each key.
        keys: on the slow axis.
        queries: on the fast axis.
        step: queries from one key to the next on the slow axis.
        offsets: on the slow axis; 2 keys - 1 if None.
    """
    offsets = 2 * keys - 1 if offsets is None else offsets
    return ((fast * offsets + step * (keys - 1 - slow)) * queries).int()


def _labels(y: Tensor, x: Tensor, window_size: Size, shift: Size) -> Tensor:
    (wh, ww), n = window_size, y.numel()
    last_row = shift_labels(wh, wh, shift[0], y.device)[y]
    last_column = shift_labels(ww, ww, shift[1], x.device)[x]
    labels = last_row.new_zeros(4, n + -n % WIDEST_PANEL, dtype=torch.int32)
    labels[1, :n] = last_column
    labels[2, :n] = last_row
    labels[3, :n] = 3 * last_row + last_column
    return labels


def order(window_size: Size) -> Tensor:
    """Of a window's pixels, counted row by row, the one at each place of the layout: [N] int64."""
    grid = layout(window_size, (0, 0)).query
    return grid.y.long() * window_size[1] + grid.x.long()
