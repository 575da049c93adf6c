"""Plans cover every pixel once, read what they need, and keep the network's window grid."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.errors import UsageError
from restore.upscaling.tiling import (
    LEAST_TILE,
    Interval,
    aligned_tile,
    alignment_in_force,
    plan,
    read_side,
    smaller_tile,
)


def check_axis(
    intervals: tuple[Interval, ...], first: int, length: int, tile: int, pad: int, align: int
) -> None:
    step = align if tile == 0 or tile >= align else math.gcd(tile, align)
    longest = tile - tile % step if tile else length
    assert intervals[0].start == first
    assert intervals[-1].end == length
    for left, right in itertools.pairwise(intervals):
        assert left.end == right.start
    inner = {it.size for it in intervals[1:-1]}
    assert len(inner) <= 1
    assert all(intervals[0].size <= size and intervals[-1].size <= size for size in inner)
    grown = set()
    for it in intervals:
        assert 1 <= it.size <= longest
        assert 0 <= it.read_start <= it.start < it.end <= it.read_end <= length
        assert it.read_start == 0 or it.start - it.read_start >= pad
        assert it.read_end == length or it.read_end - it.end >= pad
        assert it.read_start % step == 0
        assert it.read_end == length or it.read_end % step == 0
        grown.add(-(-it.read_end // step) * step - it.read_start)
    assert len(grown) == 1
    if tile:
        side = max(it.size for it in intervals)
        # one halo is rounded up, and a whole window may lie across an end of the picture
        assert grown.pop() <= -(-(-(-side // step) * step + 2 * pad) // step) * step
        assert max(it.read_size for it in intervals) <= read_side(tile, pad, align)


def test_every_small_axis() -> None:
    for align in (1, 2, 3, 4, 8):
        for tile in (0, 1, 2, 3, 4, 5, 8, 11, 16):
            for pad in (0, 1, 3, 4, 9):
                for length in range(1, 41):
                    it = plan(length, 1, tile, pad, align).rows
                    check_axis(it, 0, length, tile, pad, align)


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    tile=st.integers(0, 700) | st.sampled_from([64, 128, 256, 512]),
    pad=st.integers(0, 80),
    align=st.sampled_from([1, 2, 7, 8, 16, 48, 64, 96, 192]),
)
def test_any_picture(height: int, width: int, tile: int, pad: int, align: int) -> None:
    p = plan(height, width, tile, pad, align)
    check_axis(p.rows, 0, height, tile, pad, align)
    check_axis(p.cols, 0, width, tile, pad, align)
    if tile and height * width < 10**6:
        tiles = list(p)
        assert len(tiles) == len(p)
        assert sum(t.row.size * t.col.size for t in tiles) == height * width


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(2, 2000),
    tile=st.integers(2, 300),
    pad=st.integers(0, 80),
    align=st.sampled_from([1, 7, 8, 48, 192]),
    halvings=st.integers(1, 4),
    data=st.data(),
)
def test_going_on_with_smaller_tiles(
    height: int, tile: int, pad: int, align: int, halvings: int, data: st.DataObject
) -> None:
    before = plan(height, 64, tile, pad, align)
    first = data.draw(st.sampled_from([r.start for r in before.rows]))
    smaller = max(1, tile >> halvings)
    after = plan(height, 64, smaller, pad, before.align, first_row=first)
    check_axis(after.rows, first, height, smaller, pad, before.align)


def test_whole_picture_is_one_tile() -> None:
    p = plan(37, 53, 0, 16, 8)
    assert p.rows == (Interval(0, 37, 0, 37),)
    assert p.cols == (Interval(0, 53, 0, 53),)


def test_interior_tiles_have_one_shape() -> None:
    p = plan(1000, 1000, 128, 16, 8)
    assert {r.read_size for r in p.rows} == {160}


def test_a_large_alignment_enlarges_one_halo_not_both() -> None:
    rows = plan(1000, 1, 192, 64, 192).rows
    assert [(r.start, r.end, r.read_start, r.read_end) for r in rows[:3]] == [
        (0, 64, 0, 384),
        (64, 256, 0, 384),
        (256, 448, 192, 576),
    ]


def test_cores_are_balanced() -> None:
    # 260 = 136 + 124, not 256 + 4
    assert [r.size for r in plan(260, 8, 256, 16, 8).rows] == [136, 124]


@pytest.mark.parametrize(
    ("tile", "align", "want"), [(0, 192, 192), (64, 192, 64), (100, 192, 4), (200, 192, 192)]
)
def test_alignment_in_force(tile: int, align: int, want: int) -> None:
    assert alignment_in_force(tile, align) == want


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5, 8, 0, 1), "height is 0; it must be at least 1"),
        ((5, 0, 8, 0, 1), "width is 0"),
        ((5, 5, -1, 0, 1), "tile is -1; it must be at least 0"),
        ((5, 5, 8, -2, 1), "tile_pad is -2"),
        ((5, 5, 8, 0, 0), "align is 0"),
    ],
)
def test_numbers_out_of_range(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(*arguments)


@pytest.mark.parametrize("first", [-8, 8, 32, 36])
def test_first_row_must_lie_where_a_core_may_begin(first: int) -> None:
    with pytest.raises(UsageError, match=f"first_row is {first}; .* below 32 and lie 4 beyond a"):
        plan(32, 32, 16, 4, 8, first_row=first)


@pytest.mark.parametrize(
    ("wanted", "align", "want"),
    [(512, 8, 512), (500, 8, 496), (512, 192, 384), (128, 192, 96), (40, 49, 40), (20, 192, 20)],
)
def test_aligned_tile(wanted: int, align: int, want: int) -> None:
    assert aligned_tile(wanted, align) == want


@given(longest=st.integers(1, 5000), align=st.integers(1, 300))
def test_smaller_tiles_come_to_an_end(longest: int, align: int) -> None:
    seen = [longest]
    while (tile := smaller_tile(seen[-1], align)) is not None:
        assert LEAST_TILE // 2 < tile < seen[-1]
        seen.append(tile)
    assert len(seen) <= 12
