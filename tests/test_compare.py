"""The comparison picture: which part, which pixels, which sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore.commands.compare import LONGEST_PANEL, busiest, comparison
from restore.image_io.picture import Picture
from restore.resizing import imresize
from restore.upscaling.pixels import AnyArray, ArraySource

HEAD, GAP = 32, 8  # rows above the panels, pixels around them


def compared(before: AnyArray, after: AnyArray, name: str = "net") -> Picture:
    return comparison(ArraySource(before), ArraySource(after), name=name)


def panels(sheet: AnyArray, height: int, width: int) -> tuple[AnyArray, AnyArray]:
    column = (sheet.shape[1] - 3 * GAP) // 2
    second = 2 * GAP + column
    rows = slice(HEAD, HEAD + height)
    return sheet[rows, GAP : GAP + width], sheet[rows, second : second + width]


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> AnyArray:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_small_pictures_are_shown_whole(channels: int) -> None:
    before, after = picture(60, 80, channels), picture(120, 160, channels, seed=1)
    shown = compared(before, after)
    first, second = panels(shown.pixels, 120, 160)
    assert np.array_equal(second, after)
    # of floats: for integers MATLAB rounds and clips between its passes
    exact = imresize(before.astype(np.float32) / np.float32(255), 2.0).clip(0, 1)
    assert np.array_equal(first, np.floor(exact.astype(np.float64) * 255 + 0.5))


def test_at_scale_1_the_first_panel_is_the_input() -> None:
    before, after = picture(100, 90), picture(100, 90, seed=1)
    first, second = panels(compared(before, after).pixels, 100, 90)
    assert np.array_equal(first, before)
    assert np.array_equal(second, after)


@pytest.mark.parametrize(
    ("size", "scale"), [((1, 1), 4), ((1, 700), 2), ((2000, 3), 2), ((40, 40), 0.3), ((7, 9), 1.7)]
)
def test_any_size_gives_two_panels_of_at_most_the_limit(
    size: tuple[int, int], scale: float
) -> None:
    before = picture(*size)
    after = picture(*(max(1, round(side * scale)) for side in size), seed=1)
    high, wide, _ = compared(before, after).pixels.shape
    assert high <= HEAD + LONGEST_PANEL + GAP
    assert wide <= 2 * LONGEST_PANEL + 3 * GAP


def test_a_large_picture_is_shown_where_its_detail_is() -> None:
    before = np.full((800, 1000, 3), 90, np.uint8)
    before[500:640, 700:840] = picture(140, 140)
    after = before.repeat(4, 0).repeat(4, 1)
    y, x = busiest(ArraySource(before), 180, 180)
    assert y <= 500 and y + 180 >= 640
    assert x <= 700 and x + 180 >= 840
    shown = compared(before, after).pixels
    _, second = panels(shown, 720, 720)
    assert np.array_equal(second, after[4 * y : 4 * y + 720, 4 * x : 4 * x + 720])


def test_the_part_does_not_depend_on_the_result() -> None:
    before = picture(500, 700)
    one, other = (np.full((1000, 1400, 3), value, np.uint8) for value in (0, 255))
    first, _ = panels(compared(before, one).pixels, 720, 720)
    again, _ = panels(compared(before, other).pixels, 720, 720)
    assert np.array_equal(first, again)


def test_hidden_detail_does_not_count() -> None:
    rgba = np.zeros((300, 300, 4), np.uint8)
    rgba[:100, :100, :3] = picture(100, 100)  # alpha 0
    rgba[200:, 200:, :3] = picture(100, 100) // 4
    rgba[200:, 200:, 3] = 255
    y, x = busiest(ArraySource(rgba), 100, 100)
    assert min(y, x) > 200 - 100 // 8  # the next place of its grid


def test_transparency_is_laid_over_white() -> None:
    before = np.zeros((10, 10, 4), np.uint8)
    before[:, 5:, 3] = 255
    first, second = panels(compared(before, before).pixels, 10, 10)
    assert (first[:, :5] == 255).all() and (first[:, 5:] == 0).all()
    assert np.array_equal(first, second)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deeper_pictures_are_rounded_to_8_bits(dtype: type[np.generic]) -> None:
    before = picture(12, 12)
    deep = before.astype(np.uint16) * 257 if dtype is np.uint16 else before / np.float32(255)
    first, _ = panels(compared(deep.astype(dtype), deep.astype(dtype)).pixels, 12, 12)
    assert np.array_equal(first, before)


def test_a_profile_of_other_colours_is_not_kept() -> None:
    gray_profile = bytes(16) + b"GRAY" + bytes(108)
    source = ArraySource(picture(8, 8))
    assert comparison(source, source, name="net", icc=gray_profile).icc is None
    rgb_profile = bytes(16) + b"RGB " + bytes(108)
    assert comparison(source, source, name="net", icc=rgb_profile).icc == rgb_profile


@given(st.integers(1, 70), st.integers(1, 70), st.data())
def test_the_part_lies_inside(height: int, width: int, data: st.DataObject) -> None:
    tall, wide = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    y, x = busiest(ArraySource(picture(height, width)), tall, wide)
    assert 0 <= y <= height - tall
    assert 0 <= x <= width - wide
