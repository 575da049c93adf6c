"""Weights of a plan add up to one exactly, and a ramp lies inside the halo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.upscaling.blend import LEVELS, axis_shares, fade_out, half_overlap, split
from restore.upscaling.tiling import plan


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile=st.integers(0, 60),
    pad=st.integers(0, 40),
    align=st.sampled_from([1, 3, 4, 8]),
    scale=st.integers(1, 4),
)
def test_weights_of_every_pixel_sum_to_exactly_one(
    height: int, width: int, tile: int, pad: int, align: int, scale: int
) -> None:
    p = plan(height, width, tile, pad, align)
    total = np.zeros((height * scale, width * scale), np.float32)
    rows = axis_shares(p.rows, half_overlap(p.rows, pad), scale)
    cols = axis_shares(p.cols, half_overlap(p.cols, pad), scale)
    for row, row_share in zip(p.rows, rows, strict=True):
        assert row.read_start * scale <= row_share.start
        assert row_share.end <= row.read_end * scale
        for col_share in cols:
            weights = row_share.weights[:, None] * col_share.weights[None, :]
            total[row_share.start : row_share.end, col_share.start : col_share.end] += weights
    assert (total == 1.0).all()


@given(length=st.integers(0, 300), start=st.integers(-5, 300), ramp=st.integers(0, 200))
def test_fade_out_falls_in_exact_levels(length: int, start: int, ramp: int) -> None:
    w = fade_out(length, start, ramp)
    assert w.dtype == np.float32
    assert (w * LEVELS == np.rint(w * LEVELS)).all()
    assert (np.diff(w) <= 0).all()
    assert (w[: max(0, start)] == 1).all()
    assert (w[max(0, start + ramp) :] == 0).all()


def test_ramp_is_linear_and_centred() -> None:
    assert fade_out(6, 1, 4).tolist() == [1, 0.875, 0.625, 0.375, 0.125, 0]


def test_split_gives_everything_away() -> None:
    left = np.array([1, 1, 0.5, 0.25], np.float32)
    mine, rest = split(left, 1, 2)
    assert mine.tolist() == [1, 0.75, 0.125, 0]
    assert (mine + rest == left).all()


@pytest.mark.parametrize(
    ("tile", "pad", "want"), [(64, 32, 8), (64, 10, 3), (64, 1, 1), (64, 0, 0), (8, 32, 4)]
)
def test_half_overlap(tile: int, pad: int, want: int) -> None:
    assert half_overlap(plan(256, 256, tile, pad, 8).rows, pad) == want


def test_one_tile_needs_no_ramp() -> None:
    p = plan(40, 40, 0, 32, 8)
    assert half_overlap(p.rows, 32) == 0
    (share,) = axis_shares(p.rows, 0, 2)
    assert (share.start, share.end) == (0, 80)
    assert (share.weights == 1).all()
